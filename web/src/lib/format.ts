// Numbers, times and payloads as text for people.
import type { Retention } from "../api/types";

const UNITS = ["KiB", "MiB", "GiB", "TiB", "PiB"];

/** 1536 → `1.5 KiB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = "B";
  for (const next of UNITS) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return unit === "B" ? `${Math.round(value)} B` : `${value < 10 ? value.toFixed(1) : Math.round(value)} ${unit}`;
}

/** What a topic keeps of its records, in one line. */
export function formatRetention(retention: Retention | null | undefined): string {
  const limits: string[] = [];
  if (retention?.age != null) limits.push(`${retention.age} of records`);
  if (retention?.bytes != null) {
    const { bytes } = retention;
    limits.push(`${typeof bytes === "number" ? formatBytes(bytes) : bytes} of each partition`);
  }
  return limits.length === 0 ? "everything" : limits.join(", and at most ");
}

/** 1234567 → `1,234,567`. */
export function formatCount(count: number): string {
  return count.toLocaleString("en-GB");
}

/** A rate per second; null, which is not known yet, is shown as a dash. */
export function formatRate(perSecond: number | null, unit: (value: number) => string): string {
  if (perSecond === null) return "–";
  if (perSecond === 0) return "0";
  return `${perSecond < 10 && unit === formatCount ? perSecond.toFixed(1) : unit(Math.round(perSecond))}/s`;
}

/** Local date and time to the millisecond. */
export function formatTime(ms: number): string {
  const date = new Date(ms);
  if (Number.isNaN(date.getTime())) return String(ms);
  const two = (part: number) => String(part).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  const millis = String(date.getMilliseconds()).padStart(3, "0");
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${millis}`;
}

/** The same in UTC, for a `datetime` attribute; empty for a time outside of the calendar. */
export function isoTime(ms: number): string {
  const date = new Date(ms);
  return Number.isNaN(date.getTime()) ? "" : date.toISOString();
}
