// A real Chromium, and a guard over everything that a page must not do.
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";

// The packages of the tests are those of the console.
const { chromium } = createRequire(new URL("../../web/package.json", import.meta.url))("playwright-core");

const SCREENSHOTS = fileURLToPath(new URL("./screenshots/", import.meta.url));
/** How long a thing may take to appear: this bounds a failure, nothing waits for it. */
const PATIENCE_MS = 60_000;
/** What a test itself asks for against the policy, to see that the browser reports it. */
const PLANTED = "https://planted.example/x.png";
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  // A page that a test has amended on its way has no address, and may not open a WebSocket to one of this machine.
  "--disable-features=LocalNetworkAccessChecks",
];

/** The browser of the machine, under the names that systems give it. */
function executable() {
  const named = ["chromium", "chromium-browser", "google-chrome"].map((name) => `/usr/bin/${name}`);
  const found = process.env.CHROMIUM ?? named.find((path) => existsSync(path));
  if (found === undefined) throw new Error(`no browser: none of ${named.join(", ")} is there, and CHROMIUM is not set`);
  return found;
}

export class Browser {
  /** Starts one with a new profile. */
  static async start() {
    const browser = new Browser();
    browser.chromium = await chromium.launch({ executablePath: executable(), args: FLAGS });
    return browser;
  }

  close() {
    return this.chromium.close();
  }

  /** A page of its own session at the server's console. When `t` is over, it must have kept to the rules. */
  async open(t, server, { reports, ...options } = {}) {
    const context = await this.chromium.newContext({ viewport: { width: 1100, height: 800 }, ...options });
    context.setDefaultTimeout(PATIENCE_MS);
    const guard = new Guard(server, reports);
    await guard.watch(context);
    await reports?.takeFrom(context);
    const page = await context.newPage();
    guard.listen(page);
    await page.goto(`${server.url}/console/`);
    t.after(async () => {
      await context.close();
      assert.deepEqual(guard.broken, []);
    });
    return page;
  }
}

/** What a page did against the rules: ran a payload, broke the policy, or asked a foreign server. */
class Guard {
  broken = [];

  constructor(server, reports) {
    this.server = server;
    this.own = [server.url, reports?.url].filter((url) => url !== undefined).map((url) => new URL(url).host);
  }

  async watch(context) {
    context.on("request", (request) => {
      const url = new URL(request.url());
      if (url.href === PLANTED) return;
      if (url.protocol !== "data:" && !this.own.includes(url.host)) this.broken.push(`request: ${url}`);
      if (url.href.includes("plk_") || url.href.includes(this.server.rootKey)) this.broken.push(`key in ${url}`);
    });
    await context.exposeBinding("reportViolation", (_source, directive, uri) => {
      if (uri !== PLANTED) this.broken.push(`policy: ${directive} ${uri}`);
    });
    await context.addInitScript(() => {
      const report = (event) => globalThis.reportViolation(event.violatedDirective, event.blockedURI);
      document.addEventListener("securitypolicyviolation", report);
    });
  }

  listen(page) {
    page.on("pageerror", (error) => this.broken.push(`error: ${error.message}`));
    page.on("dialog", async (dialog) => {
      this.broken.push(`dialog: ${dialog.message()}`);
      await dialog.dismiss();
    });
    page.on("popup", (popup) => this.broken.push(`popup: ${popup.url()}`));
  }
}

/**
 * Where the browser sends its reports of broken policies. It makes them itself, so they also tell what a page hides from its
 * own scripts.
 */
export class Reports {
  received = [];
  #arrived = () => {};

  static async start(t) {
    const reports = new Reports();
    const listener = createServer((request, response) => reports.#take(request, response));
    await once(listener.listen(0, "127.0.0.1"), "listening");
    t.after(() => listener.close());
    reports.url = `http://127.0.0.1:${listener.address().port}/`;
    return reports;
  }

  /** Pages of this context keep the policies that the server gives, and have their violations reported here. */
  takeFrom(context) {
    return context.route(
      (url) => url.host !== new URL(this.url).host,
      async (route) => {
        if (route.request().resourceType() !== "document") return route.continue();
        const response = await route.fetch({ maxRedirects: 0 });
        const { "content-security-policy": policy, ...others } = response.headers();
        const headers = policy === undefined ? others : { ...others, "content-security-policy": `${policy}; report-uri ${this.url}` };
        await route.fulfill({ response, headers });
      },
    );
  }

  /** Lets a page break its policy, and waits for the report of it: those of what came before are there then. */
  async last(page) {
    const seen = new Promise((done) => (this.#arrived = (url) => url === PLANTED && done()));
    await page.evaluate((url) => void (new Image().src = url), PLANTED);
    await seen;
    return this.received.filter((url) => url !== PLANTED);
  }

  async #take(request, response) {
    const parts = [];
    for await (const part of request) parts.push(part);
    response.writeHead(204).end();
    const url = JSON.parse(Buffer.concat(parts).toString())["csp-report"]["blocked-uri"];
    this.received.push(url);
    this.#arrived(url);
  }
}

/** How many elements there are that only an attack could have made. */
export function foreignElements(page) {
  return page.evaluate(() => {
    const names = "img, svg, iframe, object, embed, video, audio, script, style, base, meta, link, math, marquee, plaintext";
    return document.querySelectorAll(`main :is(${names})`).length;
  });
}

export async function signIn(page, key, tenant) {
  await page.getByLabel("Key", { exact: true }).fill(key);
  if (tenant !== undefined) await page.getByLabel("Tenant").fill(tenant);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByRole("heading", { name: "Topics" }).waitFor();
}

/** Goes to a tab of a topic by its address. */
export async function openTopic(page, name, tab) {
  await page.evaluate((hash) => (location.hash = hash), `#/topics/${encodeURIComponent(name)}/${tab}`);
  await page.getByRole("heading", { name, exact: true, level: 1 }).waitFor();
}

/** Waits until the live view has caught up. */
export function caughtUp(page) {
  return page.locator('[data-state="live"]').waitFor();
}

/** A picture for people, in a directory that git ignores. */
export async function picture(page, name) {
  await mkdir(SCREENSHOTS, { recursive: true });
  await page.screenshot({ path: `${SCREENSHOTS}${name}.png` });
}
