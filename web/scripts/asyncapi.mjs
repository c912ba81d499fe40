// Reads openapi/asyncapi.json with the parser of AsyncAPI itself and says what is wrong with it.
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { Parser } from "@asyncapi/parser";

const source = fileURLToPath(new URL("../../openapi/asyncapi.json", import.meta.url));
const { document, diagnostics } = await new Parser().parse(await readFile(source, "utf8"), { source });
const SEVERITIES = ["error", "warning", "information", "hint"];
// That there is a newer version of AsyncAPI is no fault: the document says 3.0.0 on purpose.
const faults = diagnostics.filter(({ code }) => code !== "asyncapi-latest-version");
for (const { severity, path, message } of faults) {
  console.error(`openapi/asyncapi.json: ${SEVERITIES[severity]} at ${path.join("/")}: ${message}`);
}
if (document === undefined || faults.length > 0) {
  process.exitCode = 1;
} else {
  console.log(`asyncapi.json: ${document.allOperations().all().length} operations, no fault`);
}
