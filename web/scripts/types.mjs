// Writes the types of the API from the generated documents in ../openapi; with --check it compares instead.
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import openapiTS, { astToString } from "openapi-typescript";

const DOCUMENTS = [
  { from: "openapi.json", to: "openapi.d.ts", read: (document) => bodies(document.components.schemas) },
  { from: "frames.schema.json", to: "frames.d.ts", read: ({ $defs }) => bodies($defs) },
];
const checking = process.argv.includes("--check");
let drifted = 0;

for (const { from, to, read } of DOCUMENTS) {
  const source = fileURLToPath(new URL(`../../openapi/${from}`, import.meta.url));
  const target = fileURLToPath(new URL(`../src/api/${to}`, import.meta.url));
  const document = read(JSON.parse(await readFile(source, "utf8")));
  // A field with a default may be left out of a request, so a default does not make it required.
  const types = astToString(await openapiTS(document, { alphabetize: true, defaultNonNullable: false }));
  const text = `// Written by \`npm run types\` from openapi/${from}; do not edit.\n\n${types}`;
  if (!checking) await writeFile(target, text);
  else if (text !== (await readFile(target, "utf8").catch(() => ""))) {
    drifted += 1;
    console.error(`web/src/api/${to} does not fit openapi/${from}; run: npm --prefix web run types`);
  }
}
process.exitCode = drifted === 0 ? 0 : 1;

/** The schemas alone, in the form that the generator reads: the console uses the bodies and spells the paths itself. */
function bodies(named) {
  const schemas = JSON.parse(JSON.stringify(named).replaceAll('"#/$defs/', '"#/components/schemas/'));
  return { openapi: "3.1.0", info: { title: "bodies", version: "1" }, paths: {}, components: { schemas } };
}
