// Pages of other origins in a real browser: what they read and open, by the lists of the tenants.
//
// Answering without a look at the list, or not asking it at the WebSocket, makes the first test fail.
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { Browser } from "./browser.mjs";
import { Server } from "./server.mjs";

const LIMIT = { timeout: 240_000 };
let browser;
before(async () => (browser = await Browser.start()));
after(() => browser.close());

/** An empty page of another origin, which is that of its port. */
async function strangersPage(t) {
  const host = createServer((_, response) => response.setHeader("Content-Type", "text/html").end("<!doctype html>"));
  await once(host.listen(0, "127.0.0.1"), "listening");
  const context = await browser.chromium.newContext();
  t.after(async () => {
    await context.close();
    host.close();
  });
  const origin = `http://127.0.0.1:${host.address().port}`;
  const page = await context.newPage();
  await page.goto(origin);
  return { page, origin };
}

/** What a script of the page gets in each way, or that it gets nothing. */
function tries(page, server, key, ticket) {
  return page.evaluate(
    async ({ url, key, ticket }) => {
      const headers = { Authorization: `Bearer ${key}`, "Record-Header-Trace": "1" };
      const records = `${url}/v1/topics/t/records`;
      const published = fetch(records, { method: "POST", headers, body: "x" }).then(
        async (answer) => `${answer.status} ${answer.headers.get("x-request-id") !== null}`,
        () => "nothing",
      );
      const events = new Promise((done) => {
        const source = new EventSource(`${records}?from=earliest&ticket=${ticket}`);
        const end = (what) => (source.close(), done(what));
        source.addEventListener("caught_up", () => end("open"));
        source.onerror = () => end("nothing");
      });
      const socket = new Promise((done) => {
        const token = btoa(key).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
        const socket = new WebSocket(`${url.replace("http", "ws")}/v1/ws`, ["plinth.v1.json", `bearer.${token}`]);
        socket.onmessage = ({ data }) => (socket.close(), done(JSON.parse(data).type));
        socket.onerror = () => done("nothing");
      });
      return { published: await published, events: await events, socket: await socket };
    },
    { url: server.url, key, ticket },
  );
}

test("a page uses the API from another origin as long as the tenant lists it", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.publish("t", [{ text: "first" }]);
  const { page, origin } = await strangersPage(t);
  const allow = (list) =>
    server.call("PATCH", "/v1/tenants/default", { allowed_origins: list }, { Authorization: `Bearer ${server.rootKey}` });
  const ticket = async () => (await server.call("POST", "/v1/tickets")).ticket;
  const nothing = { published: "nothing", events: "nothing", socket: "nothing" };
  const all = { published: "201 true", events: "open", socket: "welcome" };
  assert.deepEqual(await tries(page, server, server.key, await ticket()), nothing);
  assert.equal((await server.records("t")).length, 1);
  for (const list of [[origin], ["https://other.example", "*"]]) {
    await allow(list);
    assert.deepEqual(await tries(page, server, server.key, await ticket()), all, `${list}`);
  }
  assert.equal((await server.records("t")).length, 3);
  await allow(["https://other.example"]);
  assert.deepEqual(await tries(page, server, server.key, await ticket()), nothing);
});

test("the pages of the documentation keep to their policies", LIMIT, async (t) => {
  const server = await Server.start(t);
  const context = await browser.chromium.newContext();
  t.after(() => context.close());
  const broken = [];
  await context.exposeBinding("reportViolation", (_source, violation) => broken.push(violation));
  await context.addInitScript(() =>
    document.addEventListener("securitypolicyviolation", (event) =>
      globalThis.reportViolation(`${location.pathname}: ${event.violatedDirective} ${event.blockedURI}`),
    ),
  );
  const page = await context.newPage();
  page.on("pageerror", (error) => broken.push(error.message));
  for (const [path, text] of [["/docs/", "Publish"], ["/docs/limits", "record_bytes_max"], ["/docs/errors/not_found", "404"]]) {
    await page.goto(server.url + path);
    await page.getByText(text).first().waitFor();
  }
  assert.deepEqual(broken, []);
});
