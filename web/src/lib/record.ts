// A record as rows of text. Payloads are text here and stay text on the page.
import type { ApiRecord } from "../api/types";

/** How much of a payload a closed row shows. */
export const PREVIEW_CHARS = 200;

/** A payload as text, and what the text is. */
export interface PayloadText {
  form: "json" | "text" | "base64" | "empty";
  text: string;
}

/** One record of a list. */
export interface Row {
  /** Unique within a list. */
  id: string;
  record: ApiRecord;
  preview: string;
}

/** The payload; JSON is on one line, or indented when `pretty`. */
export function payloadText(record: ApiRecord, pretty = false): PayloadText {
  if (record.text) return { form: "text", text: record.text };
  if (record.base64) return { form: "base64", text: record.base64 };
  if (record.value !== undefined) {
    return { form: "json", text: JSON.stringify(record.value, null, pretty ? 2 : 0) ?? "" };
  }
  return { form: "empty", text: "" };
}

/** The row of a record. A list that may show a record twice gives each showing its own `serial`. */
export function rowOf(record: ApiRecord, serial = 0): Row {
  return { id: `${record.partition}:${record.offset}:${serial}`, record, preview: previewOf(record) };
}

function previewOf(record: ApiRecord): string {
  const { form, text } = payloadText(record);
  if (form === "empty") return "(empty)";
  const line = text.slice(0, PREVIEW_CHARS * 2).replace(/\s+/g, " ").trim();
  return text.length > PREVIEW_CHARS ? `${line.slice(0, PREVIEW_CHARS)}…` : line;
}
