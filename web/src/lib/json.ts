// JSON that keeps its numbers as they were written: JavaScript would show 12345678901234567890 as 12345678901234567000.

interface SourceContext {
  source?: string;
}
type SourceReviver = (this: unknown, key: string, value: unknown, context?: SourceContext) => unknown;
interface JsonWithSource {
  parse(text: string, reviver: SourceReviver): unknown;
  rawJSON?: (text: string) => unknown;
}

/** Parses; a number that JavaScript cannot hold as written becomes raw JSON that is written back unchanged. */
export function parseExactly(text: string): unknown {
  const json = JSON as unknown as JsonWithSource;
  const { rawJSON } = json;
  if (rawJSON === undefined) return JSON.parse(text);
  return json.parse(text, (_key, value, context) =>
    typeof value === "number" && context?.source !== undefined && String(value) !== context.source
      ? rawJSON(context.source)
      : value,
  );
}
