import { describe, expect, test } from "vitest";
import type { Topic } from "../api/types";
import { isClosed, streamLine, type TopicForm, topicRequest } from "./topic";

const form: TopicForm = { partitions: 1, maxRecordBytes: null, durability: "object", age: "", bytes: "" };

describe("a new topic", () => {
  test("names its durability class, and nothing that was left empty", () => {
    expect(topicRequest(form)).toEqual({ partitions: 1, durability: "object" });
    const request = topicRequest({ ...form, partitions: 4, maxRecordBytes: 1000, durability: "local", age: " " });
    expect(request).toEqual({ partitions: 4, max_record_bytes: 1000, durability: "local" });
  });

  test("keeps records for a time, or so many bytes, or both", () => {
    expect(topicRequest({ ...form, age: " 7d " }).retention).toEqual({ age: "7d" });
    expect(topicRequest({ ...form, bytes: "10GiB" }).retention).toEqual({ bytes: "10GiB" });
    expect(topicRequest({ ...form, bytes: "5000" }).retention).toEqual({ bytes: 5000 });
    expect(topicRequest({ ...form, age: "12h", bytes: "1 MiB" }).retention).toEqual({ age: "12h", bytes: "1 MiB" });
  });
});

describe("a topic as a stream", () => {
  const topic: Topic = {
    name: "a",
    partitions: 1,
    durability: "object",
    max_record_bytes: 1000,
    cleanup: "delete",
    created_at: 0,
    bytes: 0,
    records: 0,
    forks: 0,
    partition_bounds: [],
  };
  const stream = { content_type: "text/plain", closed: false };

  test("is told in one line, and one that is none is not", () => {
    expect(streamLine(topic)).toBe("");
    expect(streamLine({ ...topic, stream })).toBe("text/plain");
    expect(streamLine({ ...topic, stream: { ...stream, closed: true, ttl: "1h" }, forks: 2 })).toBe(
      "text/plain · closed · ends 1h after its last use · 2 forks",
    );
    const line = streamLine({ ...topic, stream: { ...stream, expires_at: 1_893_456_000_500 }, forks: 1 });
    expect(line).toMatch(/^text\/plain · ends at (2029|2030)-\d\d-\d\d \d\d:\d\d:00\.500 · 1 fork$/);
  });

  test("is closed when its one partition is, too", () => {
    const bounds = { partition: 0, start: 0, tail: 0, bytes: 0, closed: true };
    expect(isClosed({ ...topic, partition_bounds: [bounds] })).toBe(true);
    expect(streamLine({ ...topic, partition_bounds: [bounds] })).toBe("closed");
    expect(isClosed(topic)).toBe(false);
  });
});
