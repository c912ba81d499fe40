// Payloads of every media type, names and addresses that were made to be run, in a real browser: in the console, in the
// system topics, and opened as pages of their own. What the browser reports of broken policies is counted by the server.
//
// The tests fail when an answer of the API takes its media type from a record, lacks `nosniff`, or puts what it was asked for
// into a page, and when the console makes an element of anything that it shows: with `{@html}` for the payload in
// `Rows.svelte` the policy reports the first handler, without the policy as well the first dialog opens.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, foreignElements, mustBeTheOnlyReport, openTopic, signIn } from "./browser.mjs";
import { BYTES, MARKUP, MEDIA_TYPES, ODD } from "./hostile.mjs";
import { Server } from "./server.mjs";

const LIMIT = { timeout: 240_000 };
let browser;
before(async () => (browser = await Browser.start()));
after(() => browser.close());

const ALL = [...MARKUP, ...ODD];
/** What the API answers with; nothing of it is run by a browser. */
const HARMLESS = /^(application\/(json|problem\+json|x-ndjson|vnd\.plinth\.batch)|text\/(event-stream|plain)|$)/;

/** Each payload as HTML, and one of each media type. */
const GIVEN = [...BYTES.map((body) => [body, "text/html"]), ...MEDIA_TYPES.map((type, at) => [BYTES[at % BYTES.length], type])];

/** One record for each payload as HTML and for each media type, with markup in its key and headers. */
async function publishBytes(server, topic) {
  for (const [at, [body, type]] of GIVEN.entries()) {
    const attack = MARKUP[at % MARKUP.length];
    const headers = { Authorization: `Bearer ${server.key}`, "Content-Type": type, "Record-Key": attack, "Record-Header-H": attack };
    const { status } = await fetch(`${server.url}/v1/topics/${topic}/records`, { method: "POST", headers, body });
    assert.equal(status, 201, type);
  }
  return GIVEN.length;
}

test("payloads of every media type are shown as text in the console, and no policy is broken", LIMIT, async (t) => {
  const server = await Server.start(t);
  const count = await publishBytes(server, "bytes");
  const stored = await server.records("bytes");
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  for (const tab of ["records", "live"]) {
    await openTopic(page, "bytes", tab);
    if (tab === "live") await page.getByLabel("From").selectOption("earliest");
    await page.locator(".rows > li").nth(count - 1).waitFor();
    for (const row of await page.locator("summary").all()) await row.click();
    await page.locator(".rows pre").nth(count - 1).waitFor();
    const seen = await page.locator(".rows > li").evaluateAll((items) =>
      items.map((item) => [Number(item.querySelector(".place").textContent), item.querySelector("pre").textContent, item.innerText]),
    );
    for (const [offset, payload, all] of seen) {
      const { text, base64, content_type: contentType } = stored[offset];
      assert.equal(payload, text ?? base64);
      assert.ok(all.includes(contentType), all);
    }
    assert.equal(await foreignElements(page), 0);
  }
  await mustBeTheOnlyReport(page, server);
});

test("names of headers, keys and issuers are shown as text or refused", LIMIT, async (t) => {
  const server = await Server.start(t);
  const root = { Authorization: `Bearer ${server.rootKey}`, "Plinth-Tenant": "default" };
  const asked = async (method, path, body) => {
    const headers = { ...root, "Content-Type": "application/json" };
    const answer = await fetch(server.url + path, { method, headers, body: JSON.stringify(body) });
    mustBeHarmless(answer.headers.get("content-type"), answer.headers.get("x-content-type-options"), `${method} ${path}`);
    return answer.status;
  };
  for (const attack of ALL) {
    const name = encodeURIComponent(attack);
    // A key may have any name for people; it is not in the console today, but in what the API shows and writes.
    const made = await asked("POST", "/v1/keys", { name: attack, scopes: ["subscribe:x"] });
    assert.ok([201, 422, 429].includes(made), `${made} ${attack}`);
    const scoped = await asked("POST", "/v1/keys", { name: "x", scopes: [`subscribe:${attack}`, attack] });
    const issuer = await asked("PUT", `/v1/issuers/${name}`, { issuer: attack, algorithms: ["HS256"], audiences: [attack] });
    const tenant = await fetch(`${server.url}/v1/tenants`, { method: "POST", headers: { Authorization: root.Authorization }, body: attack });
    for (const status of [scoped, issuer, tenant.status]) assert.ok(status >= 400 && status < 500, `${status} ${attack}`);
    const record = { records: [{ text: attack, headers: { [attack]: attack }, content_type: attack }] };
    const batch = { ...root, "Content-Type": "application/vnd.plinth.batch+json" };
    const stored = await fetch(`${server.url}/v1/topics/names/records`, { method: "POST", headers: batch, body: JSON.stringify(record) });
    assert.ok([201, 400, 422].includes(stored.status), `${stored.status} ${attack}`);
  }
  const page = await browser.open(t, server);
  await signIn(page, server.rootKey, "default");
  for (const topic of ["_audit", "_events", "names"]) {
    await openTopic(page, topic, "live");
    await page.getByLabel("From").selectOption("earliest");
    await page.locator('[data-state="live"]').waitFor();
    for (const row of await page.locator("summary").all()) await row.click();
    if (topic === "_audit") await page.locator(".rows pre").nth(ALL.length).waitFor();
    assert.equal(await foreignElements(page), 0, topic);
  }
  // What the form does not send, and what the server refuses of it, is told in the form.
  await openTopic(page, "names", "publish");
  for (const attack of MARKUP) {
    await page.getByLabel("Payload").fill(attack);
    await page.getByLabel("Headers").fill(`${attack.replaceAll(":", "")}: x\nx${attack}`);
    await page.getByRole("button", { name: "Publish", exact: true }).click();
    await page.getByRole("alert").or(page.getByText("Stored in partition")).first().waitFor();
    assert.equal(await foreignElements(page), 0, attack);
  }
  await mustBeTheOnlyReport(page, server);
});

test("records opened as pages of their own run nothing, in whichever form", LIMIT, async (t) => {
  const server = await Server.start(t);
  await publishBytes(server, "bytes");
  await server.publish("bytes", ALL.map((attack) => ({ key: attack, text: attack, content_type: "text/html" })));
  const records = "/v1/topics/bytes/records?from=earliest&limit=1000";
  for (const [accept, address] of [
    ["application/json", records],
    ["text/html,application/xhtml+xml,image/avif,*/*;q=0.8", records],
    ["application/x-ndjson", "/v1/topics/bytes/records?from=earliest"],
    ["text/event-stream", "/v1/topics/bytes/records?from=earliest"],
    ["text/event-stream", "/v1/topics/bytes/records?from=earliest&format=value&unnamed=true"],
    ["application/vnd.plinth.batch", records],
    ["application/json", "/v1/keys"],
  ]) {
    const page = await browser.open(t, server);
    const opened = page.waitForResponse(server.url + address);
    await page.setExtraHTTPHeaders({ Authorization: `Bearer ${server.key}`, Accept: accept });
    // What is no page at all becomes a download, which ends the way there.
    const shown = await page.goto(server.url + address, { waitUntil: "commit" }).then(() => true, () => false);
    const headers = await (await opened).allHeaders();
    mustBeHarmless(headers["content-type"], headers["x-content-type-options"], `${accept} ${address}`);
    if (shown) await mustShowText(page, address);
  }
});

// An answer of a stream has the media type that its writer has chosen. The test fails when a browser makes a page of it.
test("streams opened as pages of their own are downloads, whatever their media type", LIMIT, async (t) => {
  const server = await Server.start(t);
  const page = await browser.open(t, server);
  await page.setExtraHTTPHeaders({ Authorization: `Bearer ${server.key}` });
  let made = 0;
  for (const [at, [body, type]] of GIVEN.entries()) {
    const address = `${server.url}/v1/stream/s${at}`;
    const headers = { Authorization: `Bearer ${server.key}`, "Content-Type": type };
    const { status } = await fetch(address, { method: "PUT", headers, body });
    if (status === 201) made += 1;
    // A body that is to be JSON, and is not.
    else assert.equal(`${status} ${type}`, `400 ${type.startsWith("application/json") ? type : ""}`);
    for (const query of status === 201 ? ["", "?offset=-1&live=long-poll"] : []) {
      const opened = page.waitForResponse(address + query);
      const shown = await page.goto(address + query, { waitUntil: "commit" }).then(() => true, () => false);
      const seen = await (await opened).allHeaders();
      assert.equal(shown, false, type);
      assert.match(seen["content-security-policy"], /sandbox/, type);
    }
  }
  assert.ok(made > BYTES.length, `${made} streams`);
});

test("what an address holds is in no page that answers it", LIMIT, async (t) => {
  const server = await Server.start(t);
  const page = await browser.open(t, server);
  await page.setExtraHTTPHeaders({ Authorization: `Bearer ${server.key}` });
  for (const attack of ALL) {
    const name = encodeURIComponent(attack);
    for (const before of ["/", "/v1/", "/v1/topics/", "/v1/topics?cursor=", "/v1/topics?x=1&", "/docs/", "/docs/errors/", "/console/"]) {
      const address = `${server.url}${before}${name}`;
      const answer = await page.goto(address, { waitUntil: "commit" });
      const headers = await answer.allHeaders();
      assert.equal(headers["x-content-type-options"], "nosniff", address);
      if (headers["content-type"]?.startsWith("text/html")) {
        const body = await answer.text();
        assert.ok(!body.includes(attack) || attack.length < 12, `${address}: ${body}`);
        assert.match(headers["content-security-policy"], /^default-src 'none';/, address);
        assert.doesNotMatch(headers["content-security-policy"], /script-src[^;]*unsafe/, address);
      } else {
        mustBeHarmless(headers["content-type"], headers["x-content-type-options"], address);
        await mustShowText(page, address);
      }
    }
  }
  assert.deepEqual(await server.policyReports(), {});
});

/** An answer that no browser runs, whatever is in it. */
function mustBeHarmless(contentType, sniffing, which) {
  assert.match(contentType ?? "", HARMLESS, which);
  assert.equal(sniffing, "nosniff", which);
}

/** The browser has made text of the answer: its own view of that has no elements but those for text. */
async function mustShowText(page, which) {
  const made = await page.evaluate(() => ({
    kind: document.contentType,
    elements: document.querySelectorAll("script, img, svg, iframe, object, embed, link, base, style, a, form").length,
  }));
  assert.doesNotMatch(made.kind, /html|xml|svg|script/, which);
  assert.equal(made.elements, 0, which);
}
