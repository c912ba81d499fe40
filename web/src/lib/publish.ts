// From the publish form to a record.
import type { PublishRecord } from "../api/types";

/** What the form holds. */
export interface Draft {
  payload: string;
  contentType: string;
  key: string;
  /** One `name: value` per line. */
  headers: string;
}

/** A record, or why the form is not one. */
export type Parsed = { record: PublishRecord } | { refused: string };

/** The payload goes as text, so that its bytes are stored as they were typed, also when they are JSON. */
export function parseDraft(draft: Draft): Parsed {
  const contentType = draft.contentType.trim();
  if (isJson(contentType)) {
    const broken = whyNotJson(draft.payload);
    if (broken !== null) return { refused: `the payload is not JSON: ${broken}` };
  }
  const headers = parseHeaders(draft.headers);
  if ("refused" in headers) return headers;
  const record: PublishRecord = { text: draft.payload };
  if (contentType !== "") record.content_type = contentType;
  if (draft.key !== "") record.key = draft.key;
  if (Object.keys(headers.headers).length > 0) record.headers = headers.headers;
  return { record };
}

/** True for `application/json` and for every `+json`, with or without parameters. */
export function isJson(contentType: string): boolean {
  const essence = (contentType.split(";")[0] ?? "").trim().toLowerCase();
  return essence === "application/json" || essence.endsWith("+json");
}

function whyNotJson(text: string): string | null {
  try {
    JSON.parse(text);
    return null;
  } catch (thrown) {
    return thrown instanceof Error ? thrown.message : String(thrown);
  }
}

function parseHeaders(text: string): { headers: { [name: string]: string } } | { refused: string } {
  const headers: [string, string][] = [];
  for (const [index, line] of text.split("\n").entries()) {
    if (line.trim() === "") continue;
    const colon = line.indexOf(":");
    const name = line.slice(0, Math.max(0, colon)).trim();
    if (name === "") return { refused: `line ${index + 1} of the headers is not "name: value"` };
    if (headers.some(([known]) => known === name)) return { refused: `the header ${name} is there twice` };
    headers.push([name, line.slice(colon + 1).trim()]);
  }
  return { headers: Object.fromEntries(headers) };
}
