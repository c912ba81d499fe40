import { describe, expect, test } from "vitest";
import type { Topic } from "../api/types";
import { at, earliest, latest, newer, older, PAGE_RECORDS } from "./pages";
import { RateMeter } from "./rates";
import { parseRoute, topicHref } from "./route";
import { forgetCredential, keepCredential, loadCredential, type Store } from "./session";

describe("pages of older records", () => {
  const bounds = { start: 100, tail: 230 };

  test("going back from the tail reaches every offset once, down to the start", () => {
    const seen: number[] = [];
    let range = older(bounds, bounds.tail);
    for (; range !== null; range = older(bounds, range.offset)) {
      for (let offset = range.offset + range.limit - 1; offset >= range.offset; offset -= 1) seen.push(offset);
    }
    expect(seen).toEqual(Array.from({ length: 130 }, (_, index) => 229 - index));
  });

  test("going forward from the start ends at the tail", () => {
    expect(earliest(bounds)).toEqual({ offset: 100, limit: PAGE_RECORDS });
    expect(newer(bounds, 150)).toEqual({ offset: 150, limit: PAGE_RECORDS });
    expect(newer(bounds, 230)).toBeNull();
  });

  test("a partition without records has one page, which is empty", () => {
    expect(latest({ start: 5, tail: 5 })).toEqual({ offset: 5, limit: PAGE_RECORDS });
    expect(older({ start: 5, tail: 5 }, 5)).toBeNull();
  });

  test("an offset is a number and nothing else", () => {
    expect(at(" 12 ")).toEqual({ offset: 12, limit: PAGE_RECORDS });
    expect(["", "-1", "1.5", "0x10", "9".repeat(16), "earliest"].map(at)).toEqual([null, null, null, null, null, null]);
  });
});

describe("rates", () => {
  const topic = (records: number, bytes: number, created_at = 1): Topic => ({
    name: "t",
    partitions: 1,
    durability: "object",
    max_record_bytes: 1,
    created_at,
    records,
    bytes,
  });

  test("need two samples and cover the last seconds", () => {
    const meter = new RateMeter();
    meter.sample([topic(0, 0)], 0);
    expect(meter.rate("t")).toEqual({ recordsPerSecond: null, bytesPerSecond: null });
    meter.sample([topic(20, 2000)], 2000);
    expect(meter.rate("t")).toEqual({ recordsPerSecond: 10, bytesPerSecond: 1000 });
    for (let atMs = 4000; atMs <= 30_000; atMs += 2000) meter.sample([topic(20, 2000)], atMs);
    expect(meter.rate("t")).toEqual({ recordsPerSecond: 0, bytesPerSecond: 0 });
  });

  test("a long break is one window, not a burst", () => {
    const meter = new RateMeter();
    meter.sample([topic(0, 0)], 0);
    meter.sample([topic(600, 600)], 60_000);
    expect(meter.rate("t").recordsPerSecond).toBe(10);
  });

  test("a topic that was made again or lost records starts anew", () => {
    const meter = new RateMeter();
    meter.sample([topic(100, 100)], 0);
    meter.sample([topic(1000, 100, 2)], 2000);
    expect(meter.rate("t").recordsPerSecond).toBeNull();
    meter.sample([topic(10, 100, 2)], 4000);
    expect(meter.rate("t").recordsPerSecond).toBeNull();
  });

  test("a topic that is not in the sample is forgotten", () => {
    const meter = new RateMeter();
    meter.sample([topic(0, 0)], 0);
    meter.sample([], 1000);
    meter.sample([topic(100, 0)], 2000);
    expect(meter.rate("t").recordsPerSecond).toBeNull();
  });
});

describe("addresses", () => {
  test("every topic name survives the way through the address", () => {
    for (const name of ["a", "a/b.c~d-e_f", "100%", "#", "ü ?&"]) {
      expect(parseRoute(topicHref(name, "records"))).toEqual({ view: "topic", name, tab: "records" });
    }
  });

  test("an address that is not known is the list", () => {
    for (const hash of ["", "#", "#/", "#/topics", "#/topics/", "#/other/x", "#/topics/%E0%A4%A/live"]) {
      expect(parseRoute(hash)).toEqual({ view: "topics" });
    }
    expect(parseRoute("#/topics/a/nothing")).toEqual({ view: "topic", name: "a", tab: "live" });
  });
});

describe("the credential", () => {
  const memory = (): Store => {
    const items = new Map<string, string>();
    return {
      getItem: (name) => items.get(name) ?? null,
      setItem: (name, value) => void items.set(name, value),
      removeItem: (name) => void items.delete(name),
    };
  };

  test("is kept until it is forgotten", () => {
    const store = memory();
    expect(loadCredential(store)).toBeNull();
    keepCredential(store, { key: "k", tenant: "t" });
    expect(loadCredential(store)).toEqual({ key: "k", tenant: "t" });
    forgetCredential(store);
    expect(loadCredential(store)).toBeNull();
  });

  test("rubbish in the store is no credential", () => {
    for (const kept of ["", "{", "null", "[]", '{"key":1}', '{"key":""}']) {
      expect(loadCredential({ ...memory(), getItem: () => kept })).toBeNull();
    }
  });
});
