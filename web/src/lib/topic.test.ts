import { describe, expect, test } from "vitest";
import { type TopicForm, topicRequest } from "./topic";

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
