// The console in a real browser, against a real server.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { Browser, caughtUp, openTopic, picture, signIn } from "./browser.mjs";
import { Server } from "./server.mjs";

const LIMIT = { timeout: 240_000 };
let browser;
before(async () => (browser = await Browser.start()));
after(() => browser.close());

const rows = (page) => page.locator(".rows > li");
const offsets = async (page) => (await page.locator(".rows .place").allTextContents()).map(Number);
const numbered = (count, first = 0) => Array.from({ length: count }, (_, index) => ({ value: { n: first + index } }));

test("a wrong key is refused with its reason, a right one stays in the tab and nowhere else", LIMIT, async (t) => {
  const server = await Server.start(t);
  const page = await browser.open(t, server);
  await page.getByLabel("Key", { exact: true }).fill("plk_nonsense");
  await page.getByRole("button", { name: "Sign in" }).click();
  const refusal = page.getByRole("alert");
  await refusal.waitFor();
  assert.match(await refusal.innerText(), /unauthenticated\s+· request \S+/);
  await picture(page, "sign-in-refused");

  await signIn(page, server.key);
  await page.getByText("There is no topic yet.").waitFor();
  const kept = await page.evaluate(() => ({ address: location.href, local: localStorage.length, cookie: document.cookie }));
  assert.deepEqual(kept, { address: `${server.url}/console/`, local: 0, cookie: "" });
  await page.reload();
  await page.getByRole("heading", { name: "Topics" }).waitFor();

  await page.getByRole("button", { name: "Sign out" }).click();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
  assert.equal(await page.evaluate(() => sessionStorage.length), 0);
  await page.reload();
  await page.getByRole("heading", { name: "Sign in" }).waitFor();
});

test("a topic is created, published to and watched live, by keyboard alone", LIMIT, async (t) => {
  const server = await Server.start(t);
  const page = await browser.open(t, server);
  const press = async (...keys) => {
    for (const key of keys) await page.keyboard.press(key);
  };
  const tabTo = async (locator) => {
    for (let steps = 0; steps < 60; steps += 1) {
      if (await locator.evaluate((element) => element === document.activeElement)) return;
      await press("Tab");
    }
    assert.fail(`the keyboard does not reach ${locator}`);
  };
  await tabTo(page.getByLabel("Key", { exact: true }));
  await page.keyboard.type(server.key);
  await press("Enter");
  await page.getByRole("heading", { name: "Topics" }).waitFor();

  await tabTo(page.getByRole("button", { name: "Create a topic" }));
  await press("Enter");
  await tabTo(page.getByLabel("Name", { exact: true }));
  await page.keyboard.type("orders/eu");
  await press("Enter");
  await page.getByRole("heading", { name: "orders/eu", level: 1 }).waitFor();
  await caughtUp(page);

  await tabTo(page.getByRole("link", { name: "Publish" }));
  await press("Enter");
  await tabTo(page.getByLabel("Payload"));
  await page.keyboard.type('{"big": 12345678901234567890, "exact": 1.10}');
  await tabTo(page.getByLabel("Key", { exact: true }));
  await page.keyboard.type("customer 7");
  await tabTo(page.getByLabel("Headers"));
  await page.keyboard.type("trace: a:b");
  await tabTo(page.getByRole("button", { name: "Publish", exact: true }));
  await press("Enter");
  await page.getByText("Stored in partition 0 at offset 0").waitFor();
  await picture(page, "published");

  await tabTo(page.getByRole("link", { name: "Live" }));
  await press("Enter");
  await page.getByLabel("From").selectOption("earliest");
  await rows(page).first().waitFor();
  await tabTo(page.locator("summary").first());
  await press("Enter");
  // The numbers are shown as they were published, which plain JavaScript numbers could not do.
  await page.getByLabel("Payload").getByText("12345678901234567890").waitFor();
  assert.equal(await page.getByLabel("Payload").textContent(), '{\n  "big": 12345678901234567890,\n  "exact": 1.10\n}');
  const facts = await page.locator(".facts").innerText();
  for (const fact of ["customer 7", "application/json", "trace", "a:b"]) assert.ok(facts.includes(fact), facts);
  await picture(page, "live-open-record");

  const [record] = await server.records("orders/eu");
  assert.equal(record.key, "customer 7");
  assert.deepEqual(record.headers, { trace: "a:b" });
});

test("sizes and rates of topics are shown and follow what is published", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.createTopic("busy", { partitions: 3 });
  await server.createTopic("idle");
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  const busy = page.getByRole("row").filter({ hasText: "busy" });
  await busy.waitFor();
  await server.publish("busy", numbered(100).map((record, index) => ({ ...record, key: `k${index}` })));
  await busy.getByRole("cell", { name: "100", exact: true }).waitFor();
  await busy.getByRole("cell", { name: /^[\d.,]+\/s$/ }).first().waitFor();
  await picture(page, "topics");

  await page.getByLabel("Names that begin with").fill("id");
  await busy.waitFor({ state: "detached" });
  assert.equal(await page.getByRole("row").filter({ hasText: "idle" }).count(), 1);

  await openTopic(page, "busy", "settings");
  // The name is there before the settings are.
  await page.locator("tbody tr").nth(2).waitFor();
  const tails = await page.locator("tbody tr td:nth-child(3)").allTextContents();
  assert.equal(tails.length, 3);
  assert.equal(tails.map(Number).reduce((sum, tail) => sum + tail), 100);
});

test("older records are paged back to the first and forth to the last", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.publish("log", numbered(120));
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  await openTopic(page, "log", "records");
  const range = (first, last) => Array.from({ length: last - first + 1 }, (_, index) => first + index);
  const shows = async (first, last) => {
    await page.getByText(`Offsets ${first} to ${last};`).waitFor();
    assert.deepEqual(await offsets(page), range(first, last));
  };
  const click = (name) => page.getByRole("button", { name, exact: true }).click();
  await shows(70, 119);
  await click("Older");
  await shows(20, 69);
  await click("Older");
  await shows(0, 19);
  assert.ok(await page.getByRole("button", { name: "Older" }).isDisabled());
  await click("Newer");
  await shows(20, 69);
  await page.getByLabel("Offset").fill("115");
  await click("Go");
  await shows(115, 119);
  assert.ok(await page.getByRole("button", { name: "Newer" }).isDisabled());
  await server.publish("log", numbered(3, 120));
  // The view of the topic learns of the new tail and offers the way to it.
  await click("Newer");
  await shows(120, 122);
  await click("Earliest");
  await shows(0, 49);
  await picture(page, "records");
  await page.getByLabel("Offset").fill("1000");
  await click("Go");
  await page.getByRole("alert").getByText("offset_above_tail").waitFor();
  await page.getByLabel("Offset").fill("-1");
  await click("Go");
  await page.getByRole("alert").getByText("not_an_offset").waitFor();
});

test("the live view is bounded, and a pause loses nothing", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.createTopic("fast");
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  await openTopic(page, "fast", "live");
  await caughtUp(page);
  await server.publish("fast", numbered(300));
  await page.getByText("300 received").waitFor();
  await page.getByRole("button", { name: "Pause" }).click();
  // More than the credit: the server holds back what the page did not take, and sends it after the pause.
  await server.publish("fast", numbered(900, 300));
  await page.getByText("Paused, 500 waiting").waitFor();
  assert.equal((await offsets(page)).at(0), 299);
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByText("1,200 received").waitFor();
  const shown = await offsets(page);
  assert.deepEqual(shown, Array.from({ length: 500 }, (_, index) => 1199 - index));
});

test("the live view goes on where it was after a crash without the cache", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.publish("kept", numbered(40));
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  await openTopic(page, "kept", "live");
  await page.getByLabel("From").selectOption("earliest");
  await page.getByText("40 received").waitFor();
  await caughtUp(page);
  const before = await server.records("kept");

  await server.kill();
  await page.locator('[data-state="waiting"]').waitFor();
  await picture(page, "live-reconnecting");
  await server.crashWithoutCache();
  assert.deepEqual(await server.records("kept"), before);
  await server.publish("kept", numbered(5, 40));
  await page.getByText("45 received").waitFor();
  assert.deepEqual(await offsets(page), Array.from({ length: 45 }, (_, index) => 44 - index));

  await openTopic(page, "kept", "records");
  await page.getByText("Offsets 0 to 44;").waitFor();
});

test("the root key acts inside a tenant and follows with a ticket", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.createTopic("of-default");
  const page = await browser.open(t, server);
  await page.getByLabel("Key", { exact: true }).fill(server.rootKey);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("alert").getByText("plinth-tenant").waitFor();
  await signIn(page, server.rootKey, "default");
  await page.getByText("root key in default").waitFor();
  await openTopic(page, "of-default", "live");
  await caughtUp(page);
  await server.publish("of-default", [{ text: "seen by root" }]);
  await page.getByText("seen by root").waitFor();
});

test("a topic is deleted after its name was typed, and who follows it is told", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.createTopic("short-lived");
  const follower = await browser.open(t, server);
  await signIn(follower, server.key);
  await openTopic(follower, "short-lived", "live");
  await caughtUp(follower);

  const page = await browser.open(t, server);
  await signIn(page, server.key);
  await openTopic(page, "short-lived", "settings");
  const button = page.getByRole("button", { name: "Delete" });
  assert.ok(await button.isDisabled());
  await page.getByLabel("Type the name of the topic").fill("short-live");
  assert.ok(await button.isDisabled());
  await picture(page, "settings");
  await page.getByLabel("Type the name of the topic").fill("short-lived");
  await button.click();
  await page.getByText("There is no topic yet.").waitFor();
  await follower.locator('[data-state="ended"]').waitFor();
});

test("what a key may not do is said in its own words", LIMIT, async (t) => {
  const server = await Server.start(t);
  await server.createTopic("locked");
  const reader = await server.makeKey(["subscribe:locked"]);
  const page = await browser.open(t, server);
  await signIn(page, reader);
  await openTopic(page, "locked", "live");
  await caughtUp(page);
  await openTopic(page, "locked", "publish");
  await page.getByLabel("Payload").fill("{}");
  await page.getByRole("button", { name: "Publish", exact: true }).click();
  const refusal = page.getByRole("alert");
  await refusal.getByText("forbidden").waitFor();
  assert.match(await refusal.innerText(), /publish.*locked[^]*Nothing was stored\.[^]*request/);
});

test("the pages fit a phone, in light and dark", LIMIT, async (t) => {
  const server = await Server.start(t);
  const long = `${"long-name/".repeat(25)}end`;
  await server.publish(long, [{ key: "k".repeat(300), text: "word ".repeat(400), headers: { h: "v".repeat(500) } }]);
  for (const colorScheme of ["light", "dark"]) {
    const page = await browser.open(t, server, { viewport: { width: 360, height: 740 }, colorScheme });
    await signIn(page, server.key);
    await page.getByRole("link", { name: long }).waitFor();
    const fits = async (name) => {
      await picture(page, `phone-${colorScheme}-${name}`);
      const width = await page.evaluate(() => document.scrollingElement.scrollWidth);
      assert.equal(width, 360, `${name} is wider than the screen`);
    };
    await fits("topics");
    for (const tab of ["records", "live", "publish", "settings"]) {
      await openTopic(page, long, tab);
      if (tab === "records") {
        await page.locator("summary").click();
        await page.locator("pre").waitFor();
      }
      await fits(tab);
    }
  }
});

// Fails when a closed stream looks like one that is still, in the list or while it is followed.
test("what a topic is as a stream is shown, and a closed one is told from one that is still", LIMIT, async (t) => {
  const server = await Server.start(t);
  const put = async (name, headers, body) => {
    const all = { Authorization: `Bearer ${server.key}`, ...headers };
    const { status } = await fetch(`${server.url}/v1/stream/${name}`, { method: "PUT", headers: all, body });
    assert.equal(status, 201, name);
  };
  await put("chats/1", { "Content-Type": "text/markdown", "Stream-TTL": "5400" }, "An answer");
  await put("chats/2", { "Stream-Forked-From": "/v1/stream/chats/1", "Stream-Closed": "true" });
  const page = await browser.open(t, server);
  await signIn(page, server.key);
  for (const [name, line] of [
    ["chats/1", "text/markdown · ends 90m after its last use · 1 fork"],
    ["chats/2", "text/markdown · closed · ends 90m after its last use"],
  ]) {
    await page.getByRole("row").filter({ hasText: name }).getByText(line, { exact: true }).waitFor();
  }
  await picture(page, "streams");
  await openTopic(page, "chats/2", "live");
  await page.getByLabel("From").selectOption("earliest");
  await rows(page).first().waitFor();
  await page.locator('[data-state="closed"]').waitFor();
  await picture(page, "stream-closed");
  await openTopic(page, "chats/2", "publish");
  await page.getByText("nothing can be appended to it any more").waitFor();
  assert.equal(await page.getByRole("button", { name: "Publish", exact: true }).isDisabled(), true);
  await openTopic(page, "chats/1", "publish");
  await page.getByText("nothing can be appended to it any more").waitFor({ state: "detached" });
  assert.equal(await page.getByLabel("Content type").inputValue(), "text/markdown");
});
