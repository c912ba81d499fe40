// What the form for a new topic asks the server for.
import type { Durability, TopicRequest } from "../api/types";

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
