// The suites that Durable Streams does not publish: they are taken out of a clone of its repository into a directory
// that is gone afterwards, with a stand-in of ours where they would start a server of their own.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { FaultyProxy } from "./faults.mjs";

const TOOLS = fileURLToPath(new URL("./sources/", import.meta.url));
const HOW = `
The suites of clients, Yjs and StreamDB are left out. They are run from a clone of github.com/durable-streams/durable-streams:
    make streams DS_REPO=<the clone>`;

const SUITES = [
  { name: "StreamDB", directory: "state", root: "/v1/stream", tests: 67 },
  { name: "Yjs", directory: "y-durable-streams", root: "", tests: 61 },
];
const CLIENTS = "client-conformance-tests";
/** How many of the cases of clients pass; the others are of features that the TypeScript client lacks. */
const CLIENT_CASES = 258;
/**
 * What must fail: the case appends a text that begins with two spaces, and demands that readers of server-sent events get
 * one of them. That is how servers lose text that write `data:` and the line; ours puts a space before it.
 */
const MUST_FAIL = ["consumer-sse/sse-strips-single-leading-space"];

export async function runFromSources(server) {
  const clone = process.env.DS_REPO;
  if (!clone) return console.log(HOW);
  execFileSync("npm", ["ci", "--prefix", TOOLS, "--no-audit", "--no-fund"], { stdio: "inherit" });
  const place = await mkdtemp(join(tmpdir(), "plinth-streams-sources-"));
  const proxy = new FaultyProxy(server);
  await proxy.start();
  try {
    copy(clone, place);
    await symlink(join(TOOLS, "node_modules"), join(place, "node_modules"));
    for (const suite of SUITES) await runVitest(suite, place, proxy);
    await runClients(place, proxy);
  } finally {
    proxy.stop();
    await rm(place, { recursive: true });
  }
}

/** What the suites are made of, as of the clone's newest commit. */
function copy(clone, place) {
  const packages = [...SUITES.map(({ directory }) => directory), CLIENTS].map((name) => `packages/${name}`);
  const archive = execFileSync("git", ["-C", clone, "archive", "HEAD", "tsconfig.json", ...packages], { maxBuffer: 1 << 28 });
  execFileSync("tar", ["-x", "-C", place], { input: archive });
}

async function runVitest({ name, directory, root, tests }, place, proxy) {
  console.log(`\nThe suite of ${name}`);
  const report = join(place, `${directory}.json`);
  const config = ["--root", place, "--config", join(TOOLS, "vitest.config.mjs")];
  const reporters = ["--reporter=dot", "--reporter=json", `--outputFile.json=${report}`];
  const args = ["run", ...config, ...reporters, `packages/${directory}/test/`];
  const [code] = await once(start("vitest", args, place, proxy.url + root, "inherit"), "exit");
  const { numPassedTests } = JSON.parse(await readFile(report, "utf8"));
  assert.equal(code, 0, `the suite of ${name} has failed`);
  assert.equal(numPassedTests, tests, "the number of tests has changed");
}

async function runClients(place, proxy) {
  console.log("\nThe suite of clients, with the TypeScript client");
  const child = start("tsx", ["src/cli.ts", "--run", "ts"], join(place, "packages", CLIENTS), `${proxy.url}/v1/stream`, "pipe");
  const said = [];
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line);
    said.push(line);
  }
  const failed = said.map((line) => /^  - ([^:]+): /.exec(line)?.[1]).filter((name) => name !== undefined);
  assert.deepEqual(failed, MUST_FAIL, "the suite of clients has failed");
  assert.ok(said.includes(`Passed: ${CLIENT_CASES}`), "the number of cases has changed");
}

function start(tool, args, cwd, url, stdout) {
  const env = { ...process.env, STREAMS_URL: url };
  return spawn(join(TOOLS, "node_modules", ".bin", tool), args, { cwd, env, stdio: ["ignore", stdout, "inherit"] });
}
