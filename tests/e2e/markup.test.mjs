// Markup and scripts in every place where a client's text reaches the console: they are shown and do nothing.
//
// Rendering any of these places with `{@html}` makes the tests fail: the guard of the page hears the dialog, the policy
// violation or the foreign request, and the text on the page is no longer what was published.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, foreignElements, openTopic, picture, signIn } from "./browser.mjs";
import { MARKUP, ODD } from "./hostile.mjs";
import { Server } from "./server.mjs";

const LIMIT = { timeout: 240_000 };
let browser;
before(async () => (browser = await Browser.start()));
after(() => browser.close());

/** So many fit on one page of records, two for each. */
const AT_ONCE = 24;
/** Those that are no name of a topic. */
const NO_NAMES = MARKUP.filter((attack) => !/^[a-z]+$/.test(attack));

test("payloads, keys, headers and content types are shown as the text that they are", LIMIT, async (t) => {
  const server = await Server.start(t);
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  const all = [...MARKUP, ...ODD];
  for (let first = 0; first < all.length; first += AT_ONCE) {
    const records = all.slice(first, first + AT_ONCE).flatMap((attack) => [
      { key: attack, text: attack, content_type: "text/html", headers: MARKUP.includes(attack) ? { h: attack } : {} },
      { value: { [attack]: [attack] } },
    ]);
    await server.publish(`attacks/${first}`, records);
    for (const tab of ["records", "live"]) await mustBeText(page, `attacks/${first}`, tab, records);
  }
});

/** What the rows of a tab show is what was published, and nothing of it is an element. */
async function mustBeText(page, topic, tab, records) {
  await openTopic(page, topic, tab);
  if (tab === "live") await page.getByLabel("From").selectOption("earliest");
  await page.locator(".rows > li").nth(records.length - 1).waitFor();
  for (const row of await page.locator("summary").all()) await row.click();
  await page.locator(".rows pre").nth(records.length - 1).waitFor();
  const seen = await page.locator(".rows > li").evaluateAll((items) =>
    items.map((item) => ({
      offset: Number(item.querySelector(".place").textContent),
      key: item.querySelector(".key")?.textContent,
      payload: item.querySelector("pre").textContent,
      facts: [...item.querySelectorAll("dd")].map((fact) => fact.textContent),
    })),
  );
  assert.equal(seen.length, records.length);
  for (const { offset, key, payload, facts } of seen) {
    const { value, text, headers, content_type: contentType } = records[offset];
    assert.equal(payload, text ?? JSON.stringify(value, null, 2));
    assert.equal(key, records[offset].key);
    for (const fact of [contentType, headers?.h]) assert.ok(fact === undefined || facts.includes(fact), `${facts}`);
  }
  assert.equal(await foreignElements(page), 0);
  await picture(page, `markup-${tab}`);
}

test("names and addresses with markup are refused and shown as text", LIMIT, async (t) => {
  const server = await Server.start(t);
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  await page.getByRole("button", { name: "Create a topic" }).click();
  for (const attack of NO_NAMES) {
    await page.getByLabel("Name", { exact: true }).fill(attack);
    await page.getByRole("button", { name: "Create", exact: true }).click();
    await page.getByRole("alert").getByText("invalid_topic_name").first().waitFor();
    await page.getByLabel("Names that begin with").fill(attack);
    assert.equal(await foreignElements(page), 0);
  }
  for (const attack of NO_NAMES) {
    await openTopic(page, attack, "live");
    await page.getByRole("alert").getByText("invalid_topic_name").first().waitFor();
    assert.equal(await page.title(), `${attack} · Plinth`.replace(/\s+/g, " "));
    assert.equal(await foreignElements(page), 0);
  }
  assert.deepEqual((await server.call("GET", "/v1/topics")).data, []);
});

test("an answer that is markup from another server in between is shown as its status", LIMIT, async (t) => {
  const server = await Server.start(t);
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  const body = JSON.stringify({ code: MARKUP[0], detail: MARKUP[1], status: 500, request_id: MARKUP[2] });
  await page.route("**/v1/topics?*", (route) => route.fulfill({ status: 500, contentType: "text/html", body }));
  const alert = page.getByRole("alert");
  await alert.waitFor();
  const text = await alert.innerText();
  for (const attack of MARKUP.slice(0, 3)) assert.ok(text.includes(attack), text);
  assert.equal(await foreignElements(page), 0);
});

test("the policy stops a script that has reached the page by another way, and the server is told", LIMIT, async (t) => {
  const server = await Server.start(t);
  const context = await browser.chromium.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${server.url}/console/`);
  const violated = await page.evaluate(async () => {
    const seen = [];
    const two = new Promise((done) =>
      document.addEventListener("securitypolicyviolation", (event) => {
        seen.push(event.effectiveDirective);
        if (seen.length === 2) done();
      }),
    );
    document.body.insertAdjacentHTML("beforeend", '<img src="//evil.example/x.png"><p onclick="window.ran = true">x</p>');
    document.querySelector("p[onclick]").click();
    await two;
    return { seen: seen.sort(), ran: window.ran === true };
  });
  assert.deepEqual(violated, { seen: ["img-src", "script-src-attr"], ran: false });
  let reports;
  do reports = await server.policyReports();
  while (Object.keys(reports).length < 2);
  assert.deepEqual(reports, { "img-src": 1, "script-src-attr": 1 });
});
