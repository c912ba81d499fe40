// The browser's own EventSource and WebSocket, in a page, without any code of ours around them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser } from "./browser.mjs";
import { Server } from "./server.mjs";

const LIMIT = { timeout: 240_000 };
const PROTOCOL = "plinth.v1.json";
let browser;
before(async () => (browser = await Browser.start()));
after(() => browser.close());

const records = Array.from({ length: 60 }, (_, n) => ({ key: `k${n % 7}`, value: { n, text: "ü😀<b>" } }));
const base64Url = (text) => Buffer.from(text).toString("base64url");
const ticket = async (server) => (await server.call("POST", "/v1/tickets")).ticket;

/** Reads `count` records of a stream with EventSource; `unnamed` ones come to `onmessage`. */
function readEvents(page, path, count) {
  return page.evaluate(
    ({ path, count }) =>
      new Promise((done, fail) => {
        const source = new EventSource(path);
        const seen = [];
        const take = (event) => {
          seen.push({ id: event.lastEventId, record: JSON.parse(event.data) });
          if (seen.length < count) return;
          source.close();
          done(seen);
        };
        source.onmessage = take;
        source.addEventListener("record", take);
        source.onerror = () => source.readyState === EventSource.CLOSED && fail(new Error("the stream was refused"));
      }),
    { path, count },
  );
}

/** Reads `count` records with a WebSocket; the frames are answered as they come. */
function readFrames(page, { path, protocols, from, count }) {
  return page.evaluate(
    ({ path, protocols, from, count }) =>
      new Promise((done, fail) => {
        const socket = new WebSocket(path.replace(/^http/, "ws"), protocols);
        const seen = [];
        let cursor = null;
        socket.onopen = () => socket.send(JSON.stringify({ type: "subscribe", id: "s", topics: ["all"], from }));
        socket.onmessage = ({ data }) => {
          const frame = JSON.parse(data);
          if (frame.type === "error") fail(new Error(data));
          if (frame.type !== "records") return;
          seen.push(...frame.records);
          cursor = frame.cursor;
          if (seen.length < count) return;
          const { protocol } = socket;
          socket.close();
          done({ seen, cursor, protocol });
        };
        socket.onclose = ({ code }) => fail(new Error(`closed with ${code}`));
      }),
    { path, protocols, from, count },
  );
}

test("EventSource, WebSocket and pages show the same records in the same order, before and after a crash", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.publish("all", records);
  const page = await browser.open(t, server);
  const protocols = [PROTOCOL, `bearer.${base64Url(server.key)}`];
  const socketPath = `${server.url}/v1/ws`;
  const streamPath = async (more) => `/v1/topics/all/records?ticket=${await ticket(server)}&${more}`;

  const compare = async (count) => {
    const paged = await server.records("all");
    assert.equal(paged.length, count);
    const events = await readEvents(page, await streamPath("from=earliest"), count);
    assert.deepEqual(events.map(({ record }) => record), paged);
    const unnamed = await readEvents(page, await streamPath("from=earliest&unnamed=true"), count);
    assert.deepEqual(unnamed, events);
    const frames = await readFrames(page, { path: socketPath, protocols, from: "earliest", count });
    assert.deepEqual(frames.seen, paged);
    assert.equal(frames.protocol, PROTOCOL);
    return { events, frames, paged };
  };

  const first = await compare(60);
  assert.deepEqual(first.paged.map(({ offset }) => offset), records.map((_, index) => index));

  await server.crashWithoutCache();
  await page.goto(`${server.url}/console/`);
  const again = await compare(60);
  assert.deepEqual(again.paged, first.paged);

  // A cursor of one transport is a position on the other, also after the crash.
  await server.publish("all", [{ value: { n: 60 } }]);
  const id = first.events[29].id;
  const resumed = await readFrames(page, { path: socketPath, protocols, from: `cursor:${id}`, count: 31 });
  assert.deepEqual(resumed.seen.map(({ offset }) => offset), Array.from({ length: 31 }, (_, index) => 30 + index));
  const cursor = encodeURIComponent(`cursor:${first.frames.cursor}`);
  const [last] = await readEvents(page, await streamPath(`from=${cursor}`), 1);
  assert.equal(last.record.offset, 60);
});

/** Opens an EventSource that only notes what comes: no code of the page runs when the connection breaks. */
function listen(page, path) {
  return page.evaluate((path) => {
    const source = new EventSource(path);
    Object.assign(window, { source, opened: 0, seen: [] });
    source.onopen = () => (window.opened += 1);
    source.onmessage = ({ data }) => window.seen.push(JSON.parse(data).offset);
  }, path);
}

const offsets = (count) => Array.from({ length: count }, (_, index) => index);

for (const host of ["127.0.0.1", "localhost"]) {
  test(`an EventSource with a ticket comes back by itself over crashes, on ${host}`, LIMIT, async (t) => {
    const server = await Server.start(t);
    await server.publish("all", records.slice(0, 10));
    const { rootKey } = server;
    const page = await browser.open(t, { url: server.url.replace("127.0.0.1", host), rootKey });
    const id = /^plk_([^_]+)_/.exec(server.key)[1];
    await listen(page, `/v1/topics/all/records?from=earliest&unnamed=true&ticket=${await ticket(server)}`);
    for (const count of [10, 20, 30]) {
      if (count > 10) {
        await server.crashWithoutCache();
        await server.publish("all", records.slice(count - 10, count));
      }
      await page.waitForFunction((count) => window.seen.length >= count, count);
    }
    assert.deepEqual(await page.evaluate(() => window.seen), offsets(30));
    assert.equal(await page.evaluate(() => window.opened), 3);
    assert.equal(await page.evaluate(() => document.cookie), "", "the cookie is out of reach of scripts");
    // With the key it ends, for ever: a page that wants to go on needs a new ticket.
    const root = { Authorization: `Bearer ${rootKey}`, "Plinth-Tenant": "default" };
    await server.call("DELETE", `/v1/keys/${id}`, undefined, root);
    await page.waitForFunction(() => window.source.readyState === EventSource.CLOSED);
    assert.equal(await page.evaluate(() => window.opened), 3);
  });
}

test("an EventSource from the latest record that breaks before the first one misses nothing", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.createTopic("all");
  const page = await browser.open(t, server);
  await listen(page, `/v1/stream?topic=a*&from=latest&unnamed=true&ticket=${await ticket(server)}`);
  await page.waitForFunction(() => window.opened === 1);
  await server.crashWithoutCache();
  await server.publish("all", records.slice(0, 5));
  await page.waitForFunction(() => window.seen.length >= 5);
  assert.deepEqual(await page.evaluate(() => window.seen), offsets(5));
});

test("a ticket is good for one browser, and a wrong subprotocol token opens nothing", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.publish("all", records.slice(0, 1));
  const page = await browser.open(t, server);
  const path = `/v1/topics/all/records?from=earliest&ticket=${await ticket(server)}`;
  assert.equal((await readEvents(page, path, 1)).length, 1);
  // The browser that used it may come back; another one may not.
  assert.equal((await readEvents(page, path, 1)).length, 1);
  await assert.rejects(readEvents(await browser.open(t, server), path, 1), /refused/);
  const socket = { path: `${server.url}/v1/ws`, from: "earliest", count: 1 };
  await assert.rejects(readFrames(page, { ...socket, protocols: [PROTOCOL, "bearer.cGxrX3dyb25n"] }), /closed with 1006/);
  const byTicket = `${server.url}/v1/ws?ticket=${await ticket(server)}`;
  assert.equal((await readFrames(page, { ...socket, path: byTicket, protocols: [PROTOCOL] })).seen.length, 1);
});
