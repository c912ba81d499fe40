// What the form for a new topic asks the server for, and what a topic is as a stream, in words.
import type { Durability, Topic, TopicRequest, TopicStream } from "../api/types";
import { formatTime } from "./format";

/** The fields of the form as they are filled in. */
export interface TopicForm {
  partitions: number | null;
  maxRecordBytes: number | null;
  durability: Durability;
  /** For how long records are kept, such as `7d`; empty for ever. */
  age: string;
  /** How much of each partition is kept, such as `10GiB` or a number of bytes; empty for all. */
  bytes: string;
}

/** The request for a topic. The class is always named: a topic that is there with another one is not the same. */
export function topicRequest({ partitions, maxRecordBytes, durability, age, bytes }: TopicForm): TopicRequest {
  const request: TopicRequest = { durability };
  if (partitions !== null) request.partitions = partitions;
  if (maxRecordBytes !== null) request.max_record_bytes = maxRecordBytes;
  const [keptAge, keptBytes] = [age.trim(), bytes.trim()];
  if (keptAge !== "" || keptBytes !== "") request.retention = {};
  if (request.retention && keptAge !== "") request.retention.age = keptAge;
  if (request.retention && keptBytes !== "") {
    request.retention.bytes = /^\d+$/.test(keptBytes) ? Number(keptBytes) : keptBytes;
  }
  return request;
}

/** When a stream ends by itself; null for one that does not. */
export function endOf({ ttl, expires_at }: TopicStream): string | null {
  if (ttl != null) return `${ttl} after its last use`;
  return expires_at == null ? null : formatTime(expires_at);
}

/** Whether nothing is appended any more; a topic that was not made as a stream can be closed, too. */
export function isClosed({ stream, partition_bounds }: Topic): boolean {
  return stream?.closed ?? partition_bounds?.some(({ closed }) => closed) ?? false;
}

/** What a topic is besides a topic, in one line; empty for one that is nothing else. */
export function streamLine(topic: Topic): string {
  const words: string[] = [];
  if (topic.stream) words.push(topic.stream.content_type);
  if (isClosed(topic)) words.push("closed");
  const end = topic.stream ? endOf(topic.stream) : null;
  if (end !== null) words.push(`ends ${topic.stream?.ttl == null ? "at " : ""}${end}`);
  const forks = topic.forks ?? 0;
  if (forks > 0) words.push(forks === 1 ? "1 fork" : `${forks} forks`);
  return words.join(" · ");
}
