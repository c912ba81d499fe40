import { describe, expect, test } from "vitest";
import { isJson, parseDraft } from "./publish";

const draft = { payload: "hello", contentType: "", key: "", headers: "" };

describe("the publish form", () => {
  test("a payload alone is a record of text", () => {
    expect(parseDraft(draft)).toEqual({ record: { text: "hello" } });
  });

  test("key, headers and content type are taken as typed", () => {
    const full = { payload: "{}", contentType: " application/json ", key: " k ", headers: "A: 1\n\n b :x: y \n" };
    expect(parseDraft(full)).toEqual({
      record: { text: "{}", content_type: "application/json", key: " k ", headers: { A: "1", b: "x: y" } },
    });
  });

  test("JSON keeps the bytes that were typed", () => {
    const payload = '{ "n": 12345678901234567890, "n": 1 }';
    expect(parseDraft({ ...draft, payload, contentType: "application/json" })).toMatchObject({ record: { text: payload } });
  });

  test("a broken JSON payload is refused and the reason is told", () => {
    const parsed = parseDraft({ ...draft, payload: "{", contentType: "application/ld+json; charset=utf-8" });
    expect(parsed).toMatchObject({ refused: expect.stringContaining("not JSON") });
  });

  test("a line that is not a header is named", () => {
    expect(parseDraft({ ...draft, headers: "a: 1\noops" })).toEqual({
      refused: 'line 2 of the headers is not "name: value"',
    });
    expect(parseDraft({ ...draft, headers: ": 1" })).toMatchObject({ refused: expect.stringContaining("line 1") });
  });

  test("a header that is there twice is refused", () => {
    expect(parseDraft({ ...draft, headers: "a: 1\na: 2" })).toEqual({ refused: "the header a is there twice" });
  });

  test("a header named __proto__ is a header like any other", () => {
    const parsed = parseDraft({ ...draft, headers: "__proto__: x" });
    expect(JSON.stringify(parsed)).toBe('{"record":{"text":"hello","headers":{"__proto__":"x"}}}');
  });

  test("only JSON types are JSON", () => {
    expect(["application/json", "Application/JSON;a=b", "application/cloudevents+json"].every(isJson)).toBe(true);
    expect(["", "text/plain", "application/jsonx", "text/json-ish"].some(isJson)).toBe(false);
  });
});
