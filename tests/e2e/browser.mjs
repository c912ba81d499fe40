// A real Chromium, and a guard over everything that a page must not do.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
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
  async open(t, server, options = {}) {
    const context = await this.chromium.newContext({ viewport: { width: 1100, height: 800 }, ...options });
    context.setDefaultTimeout(PATIENCE_MS);
    const guard = new Guard(server);
    await guard.watch(context);
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

  constructor(server) {
    this.server = server;
  }

  async watch(context) {
    context.on("request", (request) => {
      const url = new URL(request.url());
      if (url.href === PLANTED) return;
      if (url.protocol !== "data:" && url.host !== new URL(this.server.url).host) this.broken.push(`request: ${url}`);
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

/** Lets a page break its policy once, and waits until that is reported: by then the reports of what came before are there. */
export async function mustBeTheOnlyReport(page, server) {
  await page.evaluate((url) => void (new Image().src = url), PLANTED);
  let reports;
  do reports = await server.policyReports();
  while (reports["img-src"] === undefined);
  assert.deepEqual(reports, { "img-src": 1 });
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
