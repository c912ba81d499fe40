// Follows one topic over a WebSocket (`plinth.v1.json`) and goes on from its cursor after every break.
//
// Credit bounds what may be under way: the server sends at most `window` records that `taken` has not counted yet, and
// waits; the log keeps the rest. So a pause costs no memory and loses nothing. Knows nothing of the page.
import { parseExactly } from "../lib/json";
import type { Client } from "./client";
import { type Failure, failureOf, failureOfProblem, mayPass } from "./failure";
import type { ApiRecord, ClientFrame, ServerFrame } from "./types";

export type LiveState =
  | { kind: "connecting" }
  | { kind: "catching_up" }
  | { kind: "live" }
  | { kind: "waiting"; retryInMs: number; reason: string }
  | { kind: "closed" }
  | { kind: "ended" }
  | { kind: "failed"; failure: Failure };

export type Gap = Extract<ServerFrame, { type: "gap" }>;

export interface LiveEvents {
  state(state: LiveState): void;
  records(records: ApiRecord[]): void;
  gap(gap: Gap): void;
}

/** The parts of a browser's WebSocket that are used. */
export type Socket = Pick<WebSocket, "readyState" | "send" | "close" | "onopen" | "onmessage" | "onclose">;

export interface LiveOptions {
  client: Pick<Client, "credential" | "topic" | "ticket">;
  topic: string;
  /** As in the query parameter `from`. */
  from: string;
  /** The most records that may be sent and not taken yet. */
  window: number;
  /** The page's address, whose server is followed. */
  page: string;
  connect?: (url: string, protocols: string[]) => Socket;
}

const PROTOCOL = "plinth.v1.json";
const SUB = "console";
/** `WebSocket.OPEN`. */
const OPEN = 1;
const BACKOFF_FIRST_MS = 500;
const BACKOFF_MAX_MS = 15_000;
const PING_EVERY_MS = 20_000;
/** Without any frame for this long, though pinged twice, the connection is taken for dead. */
const SILENCE_MAX_MS = 50_000;

export class Live {
  private socket: Socket | null = null;
  private cursor: string | null = null;
  private untaken = 0;
  private owed = 0;
  private attempts = 0;
  private stopped = false;
  private isClosed = false;
  private heardAtMs = 0;
  private retryTimer: ReturnType<typeof setTimeout> | undefined;
  private pingTimer: ReturnType<typeof setInterval> | undefined;

  constructor(
    private readonly options: LiveOptions,
    private readonly events: LiveEvents,
  ) {}

  start(): void {
    void this.open();
  }

  /** Ends it; no event comes afterwards. */
  stop(): void {
    this.stopped = true;
    this.drop();
    clearTimeout(this.retryTimer);
  }

  /** The reader has used `count` more records, so as many more may come. */
  taken(count: number): void {
    this.untaken = Math.max(0, this.untaken - count);
    this.owed += count;
    if (this.owed * 4 < this.options.window) return;
    this.send({ type: "credit", sub: SUB, n: this.owed });
    this.owed = 0;
  }

  private async open(): Promise<void> {
    this.events.state({ kind: "connecting" });
    try {
      // The answer to the upgrade is hidden from pages, so the reason of a refusal is asked for in the plain way.
      await this.options.client.topic(this.options.topic);
      const { url, protocols } = await this.address();
      if (this.stopped) return;
      this.listen((this.options.connect ?? ((to, names) => new WebSocket(to, names)))(url, protocols));
    } catch (thrown) {
      if (!this.stopped) this.fail(failureOf(thrown));
    }
  }

  /** An API key goes into the subprotocol; the root key, which needs its tenant, buys a ticket. */
  private async address(): Promise<{ url: string; protocols: string[] }> {
    const url = new URL("/v1/ws", this.options.page);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const { key, tenant } = this.options.client.credential;
    if (tenant === undefined) return { url: url.href, protocols: [PROTOCOL, `bearer.${base64Url(key)}`] };
    url.searchParams.set("ticket", (await this.options.client.ticket()).ticket);
    return { url: url.href, protocols: [PROTOCOL] };
  }

  private listen(socket: Socket): void {
    this.socket = socket;
    this.heardAtMs = Date.now();
    socket.onopen = () => {
      const from = this.cursor === null ? this.options.from : `cursor:${this.cursor}`;
      const credit = this.options.window - this.untaken;
      this.owed = 0;
      this.send({ type: "subscribe", id: SUB, topics: [this.options.topic], from, credit });
    };
    socket.onmessage = (event: MessageEvent) => {
      this.heardAtMs = Date.now();
      if (typeof event.data === "string") this.receive(parseExactly(event.data) as ServerFrame);
    };
    socket.onclose = (event: CloseEvent) => this.closed(event);
    this.pingTimer = setInterval(() => this.beat(), PING_EVERY_MS);
  }

  private receive(frame: ServerFrame): void {
    switch (frame.type) {
      case "subscribed":
        this.attempts = 0;
        this.isClosed = false;
        this.cursor = frame.cursor;
        return this.events.state({ kind: "catching_up" });
      case "records":
        this.cursor = frame.cursor;
        this.untaken += frame.records.length;
        return this.events.records(frame.records);
      case "caught_up":
        this.cursor = frame.cursor;
        return this.events.state({ kind: this.isClosed ? "closed" : "live" });
      case "gap":
        this.cursor = frame.cursor;
        return this.events.gap(frame);
      case "end":
        this.finish();
        return this.events.state({ kind: "ended" });
      case "error":
        return this.fail(failureOfProblem(frame.problem));
      case "goaway":
        this.cursor = frame.cursors[SUB] ?? this.cursor;
        return this.retry(frame.reconnect_in_ms, frame.reason);
      // There will be no more, unless the topic is deleted: the connection tells that. It may come before it is caught up.
      case "closed":
        this.isClosed = true;
        return this.events.state({ kind: "closed" });
      case "welcome":
      case "unsubscribed":
      case "published":
      case "token_expiring":
      case "pong":
        return;
    }
  }

  private closed(event: CloseEvent): void {
    const reason = event.reason || `the connection was closed (${event.code})`;
    // 4401: the credential has ended. What may be read is asked for again before every attempt, so others are retried.
    if (event.code === 4401) this.fail({ detail: reason, code: "unauthenticated", status: 401 });
    else this.retry(null, reason);
  }

  private fail(failure: Failure): void {
    if (mayPass(failure)) return this.retry(null, failure.detail);
    this.finish();
    this.events.state({ kind: "failed", failure });
  }

  /** Opens again after `waitMs`, or after a time that grows with each attempt. */
  private retry(waitMs: number | null, reason: string): void {
    this.drop();
    const backoffMs = Math.min(BACKOFF_MAX_MS, BACKOFF_FIRST_MS * 2 ** this.attempts) * (0.5 + Math.random() / 2);
    const retryInMs = Math.round(waitMs ?? backoffMs);
    this.attempts += 1;
    this.events.state({ kind: "waiting", retryInMs, reason });
    clearTimeout(this.retryTimer);
    this.retryTimer = setTimeout(() => void this.open(), retryInMs);
  }

  private beat(): void {
    if (Date.now() - this.heardAtMs > SILENCE_MAX_MS) this.retry(null, "the server is silent");
    else this.send({ type: "ping" });
  }

  /** Sends when the socket is open. What is not sent is made up for by the credit of the next `subscribe`. */
  private send(frame: ClientFrame): void {
    if (this.socket?.readyState === OPEN) this.socket.send(JSON.stringify(frame));
  }

  private finish(): void {
    this.stopped = true;
    this.drop();
  }

  /** Lets go of the socket; what it still says is not heard. */
  private drop(): void {
    clearInterval(this.pingTimer);
    if (this.socket === null) return;
    this.socket.onopen = this.socket.onmessage = this.socket.onclose = null;
    this.socket.close(1000);
    this.socket = null;
  }
}

/** Base64url without padding of the UTF-8 of `text`. */
export function base64Url(text: string): string {
  const binary = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join("");
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}
