import { describe, expect, test } from "vitest";
import { formatBytes, formatCount, formatRate, formatRetention, formatTime, isoTime } from "./format";
import { parseExactly } from "./json";
import { payloadText, PREVIEW_CHARS, rowOf } from "./record";

const place = { topic: "t", partition: 2, offset: 7, timestamp: 0 };

describe("numbers and times", () => {
  test("bytes have the unit in which they are readable", () => {
    expect([0, 1023, 1024, 1536, 10 * 1024, 1024 ** 2, 5.25 * 1024 ** 4].map(formatBytes)).toEqual([
      "0 B",
      "1023 B",
      "1.0 KiB",
      "1.5 KiB",
      "10 KiB",
      "1.0 MiB",
      "5.3 TiB",
    ]);
  });

  test("what a topic keeps is one line", () => {
    expect(formatRetention(undefined)).toBe("everything");
    expect(formatRetention({ age: "7d" })).toBe("7d of records");
    expect(formatRetention({ bytes: 10 * 1024 ** 3 })).toBe("10 GiB of each partition");
    expect(formatRetention({ age: "90m", bytes: 1536 })).toBe("90m of records, and at most 1.5 KiB of each partition");
  });

  test("a rate that is not known is a dash and a small one keeps a digit", () => {
    expect(formatRate(null, formatCount)).toBe("–");
    expect(formatRate(0, formatBytes)).toBe("0");
    expect(formatRate(0.54, formatCount)).toBe("0.5/s");
    expect(formatRate(1234.4, formatCount)).toBe("1,234/s");
    expect(formatRate(2048, formatBytes)).toBe("2.0 KiB/s");
  });

  test("a time outside of the calendar is shown as its number", () => {
    expect(formatTime(Number.MAX_SAFE_INTEGER)).toBe(String(Number.MAX_SAFE_INTEGER));
    expect(isoTime(Number.MAX_SAFE_INTEGER)).toBe("");
    expect(isoTime(0)).toBe("1970-01-01T00:00:00.000Z");
    expect(formatTime(0)).toMatch(/^19(69|70)-\d\d-\d\d \d\d:\d\d:00\.000$/);
  });
});

describe("payloads", () => {
  test("markup is text like any other", () => {
    const text = "<img src=x onerror=alert(1)>";
    expect(payloadText({ ...place, text })).toEqual({ form: "text", text });
    expect(rowOf({ ...place, text }).preview).toBe(text);
  });

  test("JSON null and false are payloads, nothing is not", () => {
    expect(payloadText({ ...place, value: null })).toEqual({ form: "json", text: "null" });
    expect(payloadText({ ...place, value: false })).toEqual({ form: "json", text: "false" });
    expect(payloadText(place)).toEqual({ form: "empty", text: "" });
    expect(rowOf({ ...place, text: "" }).preview).toBe("(empty)");
  });

  test("a long payload is cut in the row and whole when it is opened", () => {
    const text = "ab \n".repeat(1000);
    expect(rowOf({ ...place, text }).preview.length).toBe(PREVIEW_CHARS + 1);
    expect(payloadText({ ...place, text }).text).toBe(text);
  });

  test("rows of different partitions with the same offset are different", () => {
    expect(rowOf(place).id).not.toBe(rowOf({ ...place, partition: 3 }).id);
  });

  test("JSON without a place for big numbers still parses", () => {
    expect(parseExactly('{"a":[1,"x",null]}')).toEqual({ a: [1, "x", null] });
  });

  test("an offset stays a number", () => {
    expect(parseExactly('{"offset":9007199254740991}')).toEqual({ offset: 9007199254740991 });
  });
});
