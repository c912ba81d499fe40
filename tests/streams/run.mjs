// Runs the public conformance suite of Durable Streams against nodes of several settings; `make streams` calls it.
//
// With DS_REPO=<clone of durable-streams/durable-streams> the suites that are not published run, too: those of the clients,
// of Yjs and of StreamDB, from a copy of their sources outside of this repository (`sources.mjs`).
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setInterval as every } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Server } from "../e2e/server.mjs";
import { runFromSources } from "./sources.mjs";

const HERE = fileURLToPath(new URL(".", import.meta.url));
/** How many tests the suite of the version in package.json has. */
const TESTS = 338;

/** Each long-poll of the suite must end within this and one second. */
const LONG_POLL_MS = 500;
const SETTINGS = {
  PLINTH_STREAM_LONG_POLL: `${LONG_POLL_MS}ms`,
  // Where the suite receives webhooks.
  PLINTH_PRIVATE_HOSTS: "127.0.0.1",
};

const RUNS = [
  { name: "a node", settings: {} },
  { name: "a node whose answers end at 4 KiB", settings: { PLINTH_STREAM_RESPONSE_BYTES: "4KiB" } },
  {
    name: "a node that reads from the object store",
    settings: {
      PLINTH_SEGMENT_BYTES: "1MiB",
      PLINTH_TAIL_BYTES: "1MiB",
      PLINTH_MEMORY_BYTES: "8MiB",
      PLINTH_CACHE_BYTES: "0B",
    },
    beside: pushOthersOut,
    after: hasReadFromTheStore,
  },
];

/** Records beside those of the suite, each of which fills the tail in memory and so pushes all else out of it. */
async function pushOthersOut(server, signal) {
  const body = randomBytes(1_000_000);
  const headers = { Authorization: `Bearer ${server.key}` };
  await server.createTopic("others", { retention: { bytes: "8MiB" } });
  try {
    for await (const _ of every(100, undefined, { signal })) {
      const { status } = await fetch(`${server.url}/v1/topics/others/records`, { method: "POST", headers, body });
      assert.equal(status, 201);
    }
  } catch (error) {
    if (error.name !== "AbortError") throw error;
  }
}

async function hasReadFromTheStore(server) {
  const gets = (await server.metrics()).matchAll(/^plinth_object_store_requests_total\{operation="get",purpose="(?:wal|segment)"\} (\d+)$/gm);
  const count = [...gets].reduce((sum, [, count]) => sum + Number(count), 0);
  console.log(`${count} requests have read from the object store`);
  assert.ok(count > TESTS, "too few reads came from the object store");
}

/** Runs the suite against one node; throws when a test has failed or was not there. */
async function runSuite(server, report) {
  const vitest = join(HERE, "node_modules", ".bin", "vitest");
  const reporters = ["--reporter=dot", "--reporter=json", `--outputFile.json=${report}`];
  const child = spawn(vitest, ["run", ...reporters], {
    cwd: HERE,
    env: {
      ...process.env,
      STREAMS_URL: server.url,
      STREAMS_KEY: server.key,
      STREAMS_LONG_POLL_MS: String(LONG_POLL_MS),
    },
    stdio: "inherit",
  });
  const [code] = await once(child, "exit");
  const { numTotalTests, numPassedTests } = JSON.parse(await readFile(report, "utf8"));
  assert.equal(code, 0, "the suite has failed");
  assert.equal(numTotalTests, TESTS, "the number of tests has changed");
  assert.equal(numPassedTests, TESTS);
}

/** Starts a node, lets `use` have it, and takes it away. */
async function withNode(settings, use) {
  const undo = [];
  try {
    const server = await Server.start({ after: (step) => undo.push(step) }, { ...SETTINGS, ...settings });
    // The suite asks as this page.
    await server.callAsRoot("PATCH", "/v1/tenants/default", { allowed_origins: ["https://example.com"] });
    return await use(server);
  } finally {
    for (const step of undo.reverse()) await step();
  }
}

const reports = await mkdtemp(join(tmpdir(), "plinth-streams-"));
try {
  for (const [n, { name, settings, beside, after }] of RUNS.entries()) {
    console.log(`\nThe suite of servers, against ${name}`);
    await withNode(settings, async (server) => {
      const over = new AbortController();
      const meanwhile = beside?.(server, over.signal);
      await runSuite(server, join(reports, `${n}.json`)).finally(() => over.abort());
      await meanwhile;
      await after?.(server);
    });
  }
} finally {
  await rm(reports, { recursive: true });
}
await withNode({}, (server) => runFromSources(server));
