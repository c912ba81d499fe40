// The suites that Durable Streams does not publish: they are taken out of a clone of its repository into a directory
// that is gone afterwards, with a stand-in of ours where they would start a server of their own.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
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
  const code = await run("vitest", ["run", ...config, ...reporters, `packages/${directory}/test/`], place, proxy.url + root);
  const { numPassedTests } = JSON.parse(await readFile(report, "utf8"));
  assert.equal(code, 0, `the suite of ${name} has failed`);
  assert.equal(numPassedTests, tests, "the number of tests has changed");
}

async function runClients(place, proxy) {
  console.log("\nThe suite of clients, with the TypeScript client");
  const code = await run("tsx", ["src/cli.ts", "--run", "ts"], join(place, "packages", CLIENTS), `${proxy.url}/v1/stream`);
  assert.equal(code, 0, "the suite of clients has failed");
}

async function run(tool, args, cwd, url) {
  const env = { ...process.env, STREAMS_URL: url };
  const child = spawn(join(TOOLS, "node_modules", ".bin", tool), args, { cwd, env, stdio: "inherit" });
  const [code] = await once(child, "exit");
  return code;
}
