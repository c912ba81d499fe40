// The chats of examples/chat in a real browser, while the page is loaded anew and the server crashes.
//
// The first test fails when the application gives up on a request that Plinth does not answer; the second one when events are
// passed on as they come.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Browser } from "./browser.mjs";
import { Server } from "./server.mjs";

const LIMIT = { timeout: 240_000 };
const APPLICATION = fileURLToPath(new URL("../../examples/chat/server.mjs", import.meta.url));
/** With what it may do and nothing else. */
const SCOPES = ["publish:chats/**", "subscribe:chats/**", "manage:chats/**"];
const WORDS = 200;
let browser;
before(async () => (browser = await Browser.start()));
after(() => browser.close());

/** The example's own server before a node with a key, and its address. */
async function startApplication(t, node, key) {
  const others = Object.entries(process.env).filter(([name]) => !name.startsWith("PLINTH_"));
  const own = { PORT: "0", WORDS: String(WORDS), PLINTH_URL: node, PLINTH_KEY: key };
  const child = spawn(process.execPath, [APPLICATION], {
    env: { ...Object.fromEntries(others), ...own },
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(async () => {
    const ended = once(child, "exit");
    child.kill("SIGKILL");
    await ended;
  });
  const [url] = await once(createInterface({ input: child.stdout }), "line");
  return { url, key };
}

/** A page that must never ask another server than the application's, and never know the key. */
async function openPage(t, { url, key }, kind) {
  const context = await browser.chromium.newContext();
  context.setDefaultTimeout(60_000);
  const broken = [];
  context.on("request", (request) => {
    const said = JSON.stringify([request.url(), request.headers(), request.postData()]);
    if (new URL(request.url()).protocol !== "data:" && !request.url().startsWith(url)) broken.push(request.url());
    if (said.includes(key)) broken.push(`the key: ${said}`);
  });
  const page = await context.newPage();
  page.on("pageerror", (error) => broken.push(error.message));
  t.after(async () => {
    await context.close();
    assert.deepEqual(broken, []);
  });
  await page.goto(`${url}/${kind}/`);
  return page;
}

async function ask(page, question) {
  const input = page.getByLabel("Question");
  await input.fill(question);
  await input.press("Enter");
}

const answerTo = (question) => `You asked: ${question}.${Array.from({ length: WORDS }, (_, n) => ` word-${n + 1}`).join("")}`;
const shown = (page) => page.locator("[data-role]").allTextContents();

/** Waits for a word of the newest answer, which must be in its middle then. */
async function inTheMiddle(page, word) {
  await page.locator("[data-role=assistant]").last().getByText(`word-${word} `).waitFor();
  assert.equal((await shown(page)).at(-1).endsWith(`word-${WORDS}`), false, "the answer is too short for this test");
}

async function isWhole(page, conversation) {
  const last = page.locator("[data-role]").nth(conversation.length - 1);
  await last.getByText(new RegExp(`word-${WORDS}$`)).waitFor();
  assert.deepEqual(await shown(page), conversation);
}

for (const kind of ["ai-sdk", "tanstack"]) {
  test(`an answer in the chat by ${kind} survives a reload of the page and a crash of the server`, LIMIT, async (t) => {
    const server = await Server.start(t);
    const application = await startApplication(t, server.url, await server.makeKey(SCOPES));
    const page = await openPage(t, application, kind);
    await ask(page, "what is durable");
    await inTheMiddle(page, 10);
    await page.reload();
    await inTheMiddle(page, 30);
    await server.crashWithoutCache();
    const first = ["what is durable", answerTo("what is durable")];
    await isWhole(page, first);
    await page.reload();
    await isWhole(page, first);

    await ask(page, "and what is not");
    await page.locator("[data-role=assistant]").nth(1).getByText("word-5 ").waitFor();
    await server.crashWithoutCache();
    await page.reload();
    await isWhole(page, [...first, "and what is not", answerTo("and what is not")]);
  });
}

test("what is passed on to a page ends behind a position, wherever the server broke off", LIMIT, async (t) => {
  const step = (n) => `event: data\ndata:[{"n":${n}}]\n\nevent: control\ndata:{"streamNextOffset":"${n}"}\n\n`;
  for (const cut of [0, 3, step(2).indexOf("event: control"), step(2).length - 1]) {
    const node = createServer((_, response) => {
      response.writeHead(200, { "Content-Type": "text/event-stream" });
      response.write(step(1) + step(2).slice(0, cut), () => response.destroy());
    });
    await once(node.listen(0, "127.0.0.1"), "listening");
    t.after(() => node.close());
    const { url } = await startApplication(t, `http://127.0.0.1:${node.address().port}`, "a key");
    const answer = await fetch(`${url}/tanstack/streams/${randomUUID()}?offset=-1&live=sse`);
    assert.equal(await answer.text(), step(1), `${cut} bytes of the second step`);
  }
});
