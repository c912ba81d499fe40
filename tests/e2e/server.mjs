// A real `plinth serve` with its data in a new directory, and the plain calls that tests make to it.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { homedir, tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const cacheHome = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache");
const target = process.env.CARGO_TARGET_DIR ?? join(cacheHome, "plinth", "target");
const BINARY = process.env.PLINTH_BIN ?? join(target, "debug", "plinth");
const ROOT_KEY = "e2e-root-key-0123456789-abcdefghijklmnop";
const READY_WITHIN_MS = 60_000;

export class Server {
  /**
   * Starts one; it is stopped and its data are removed when the test `t` is over. `settings` are further variables of its
   * environment.
   */
  static async start(t, settings = {}) {
    const server = new Server();
    server.settings = settings;
    server.directory = await mkdtemp(join(tmpdir(), "plinth-e2e-"));
    t.after(async () => {
      await server.kill();
      await rm(server.directory, { recursive: true, force: true });
    });
    await server.launch("127.0.0.1:0");
    server.key = await server.makeKey(["publish:**", "subscribe:**", "manage:**"]);
    return server;
  }

  rootKey = ROOT_KEY;

  async launch(listen) {
    // The server refuses variables of its prefix that it does not know, such as the one that names it here.
    const others = Object.entries(process.env).filter(([name]) => !name.startsWith("PLINTH_"));
    const flags = ["--listen", listen, "--store", `file://${this.directory}/objects`, "--cache-dir", this.cacheDirectory];
    this.child = spawn(BINARY, ["serve", ...flags], {
      cwd: this.directory,
      env: { ...Object.fromEntries(others), PLINTH_ROOT_KEY: ROOT_KEY, PLINTH_LOG: "warn", ...this.settings },
      stdio: ["ignore", "pipe", "inherit"],
    });
    this.url = await this.printedUrl();
    await this.ready();
  }

  get cacheDirectory() {
    return join(this.directory, "cache");
  }

  /** The address, which the server prints once it accepts connections. */
  async printedUrl() {
    const said = [];
    for await (const line of createInterface({ input: this.child.stdout })) {
      said.push(line);
      const url = /http:\/\/127\.0\.0\.1:\d+/.exec(line)?.[0];
      if (url !== undefined) {
        this.child.stdout.resume();
        return url;
      }
    }
    throw new Error(`${BINARY} serve ended before it printed its address: ${said.join("\n")}`);
  }

  async ready() {
    const deadline = AbortSignal.timeout(READY_WITHIN_MS);
    for (;;) {
      const { status } = await fetch(`${this.url}/readyz`, { signal: deadline });
      if (status === 200) return;
    }
  }

  /** Ends it as a power cut would. */
  async kill() {
    if (this.child.exitCode !== null || this.child.signalCode !== null) return;
    const ended = once(this.child, "exit");
    this.child.kill("SIGKILL");
    await ended;
  }

  /** `kill -9`, no cache, and a start at the same address. */
  async crashWithoutCache() {
    await this.kill();
    await rm(this.cacheDirectory, { recursive: true, force: true });
    await this.launch(new URL(this.url).host);
  }

  /** A call with the API key; an answer that is not a success throws. */
  async call(method, path, body, headers = {}) {
    const init = { method, headers: { Authorization: `Bearer ${this.key ?? ""}`, ...headers } };
    if (body !== undefined) {
      init.body = JSON.stringify(body);
      init.headers["Content-Type"] ??= "application/json";
    }
    const response = await fetch(this.url + path, init);
    const text = await response.text();
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${text}`);
    return text === "" ? null : JSON.parse(text);
  }

  async metrics() {
    return (await fetch(`${this.url}/metrics`)).text();
  }

  /** How many reports of broken policies browsers have sent, by directive. */
  async policyReports() {
    const found = (await this.metrics()).matchAll(/^plinth_policy_reports_total\{directive="([^"]+)"\} (\d+)$/gm);
    return Object.fromEntries([...found].map(([, directive, count]) => [directive, Number(count)]));
  }

  async makeKey(scopes) {
    return (await this.callAsRoot("POST", "/v1/keys", { name: "e2e", scopes })).key;
  }

  /** A call with the operator's key, for the tenant `default`. */
  callAsRoot(method, path, body) {
    return this.call(method, path, body, { Authorization: `Bearer ${ROOT_KEY}`, "Plinth-Tenant": "default" });
  }

  createTopic(name, settings = {}) {
    return this.call("PUT", `/v1/topics/${encodeURIComponent(name)}`, settings);
  }

  publish(topic, records) {
    const type = { "Content-Type": "application/vnd.plinth.batch+json" };
    return this.call("POST", `/v1/topics/${encodeURIComponent(topic)}/records`, { records }, type);
  }

  /** Every record of a topic of one partition. */
  async records(topic) {
    return (await this.call("GET", `/v1/topics/${encodeURIComponent(topic)}/records?from=earliest&limit=10000`)).records;
  }
}
