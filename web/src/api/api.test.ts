import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { Client, type Credential } from "./client";
import { ApiError, type Failure, failureOf, mayPass } from "./failure";
import { base64Url, Live, type LiveState, type Socket } from "./live";
import type { ApiRecord, ServerFrame, Topic } from "./types";

interface Call {
  path: string;
  init: RequestInit;
}

function answering(response: () => Response): { calls: Call[]; fetcher: typeof fetch } {
  const calls: Call[] = [];
  const fetcher: typeof fetch = async (input, init) => {
    calls.push({ path: String(input), init: init ?? {} });
    return response();
  };
  return { calls, fetcher };
}

const problem = { type: "/docs/errors/conflict", title: "T", status: 409, detail: "topic t has 2", code: "conflict" };

describe("the client", () => {
  test("puts the credential into headers and not into the address", async () => {
    const { calls, fetcher } = answering(() => Response.json({ data: [], next_cursor: null }));
    await new Client({ key: "secret", tenant: "acme" }, fetcher).listTopics("a b", "c&d", 5);
    const headers = new Headers(calls[0]?.init.headers);
    expect(headers.get("authorization")).toBe("Bearer secret");
    expect(headers.get("plinth-tenant")).toBe("acme");
    expect(calls[0]?.path).toBe("/v1/topics?limit=5&prefix=a+b&cursor=c%26d");
  });

  test("writes a slash of a topic name as %2F", async () => {
    const { calls, fetcher } = answering(() => new Response(null, { status: 204 }));
    await new Client({ key: "k" }, fetcher).deleteTopic("a/../b");
    expect(calls[0]).toMatchObject({ path: "/v1/topics/a%2F..%2Fb", init: { method: "DELETE" } });
  });

  test("a name that is a step of a path is refused without a request", async () => {
    const { calls, fetcher } = answering(() => Response.json({}));
    for (const name of ["", ".", ".."]) {
      const thrown = await new Client({ key: "k" }, fetcher).deleteTopic(name).catch((error: unknown) => error);
      expect(failureOf(thrown).code).toBe("invalid_topic_name");
    }
    await expect(new Client({ key: "k" }, fetcher).topic("..")).rejects.toThrow("is not a topic name");
    expect(calls).toEqual([]);
  });

  test("shows the detail, the code and the request id of a problem", async () => {
    const { fetcher } = answering(() => Response.json(problem, { status: 409, headers: { "x-request-id": "r1" } }));
    const thrown = await new Client({ key: "k" }, fetcher).createTopic("t", {}).catch((error: unknown) => error);
    expect(failureOf(thrown)).toEqual({ detail: "topic t has 2", code: "conflict", status: 409, requestId: "r1" });
  });

  test("an answer that is no problem document is told by its status", async () => {
    const { fetcher } = answering(() => new Response("<html>", { status: 502, statusText: "Bad Gateway" }));
    const thrown = await new Client({ key: "k" }, fetcher).topic("t").catch((error: unknown) => error);
    expect(failureOf(thrown)).toMatchObject({ detail: "the server answered 502 Bad Gateway", status: 502 });
  });

  test("a key that cannot be a header is refused without a request", async () => {
    const { calls, fetcher } = answering(() => Response.json({}));
    const thrown = await new Client({ key: "ключ" }, fetcher).topic("t").catch((error: unknown) => error);
    expect(failureOf(thrown).code).toBe("unauthenticated");
    expect(calls).toEqual([]);
  });

  test("a refused record of a publish is a failure with its outcome", async () => {
    const results = [{ problem: { ...problem, outcome: "not_stored" } }];
    const { fetcher } = answering(() => Response.json({ results }, { status: 207 }));
    const thrown = await new Client({ key: "k" }, fetcher).publish("t", { text: "x" }).catch((error: unknown) => error);
    expect(failureOf(thrown)).toMatchObject({ code: "conflict", outcome: "not_stored" });
  });

  test("only what may pass by itself is tried again", () => {
    const failure = (status: number, code = "x"): Failure => ({ detail: "", code, status });
    expect([failure(0, "network"), failure(503), failure(429)].every(mayPass)).toBe(true);
    expect([failure(0, "console"), failure(401), failure(404), failure(410)].some(mayPass)).toBe(false);
  });
});

class FakeSocket implements Socket {
  onopen: Socket["onopen"] = null;
  onmessage: Socket["onmessage"] = null;
  onclose: Socket["onclose"] = null;
  readyState = 0;
  sent: Record<string, unknown>[] = [];
  closed = false;
  constructor(
    readonly url: string,
    readonly protocols: string[],
  ) {}
  send(data: string | ArrayBufferLike | Blob | ArrayBufferView): void {
    if (this.readyState === 0) throw new DOMException("still connecting", "InvalidStateError");
    this.sent.push(JSON.parse(String(data)) as Record<string, unknown>);
  }
  close(): void {
    this.closed = true;
  }
  opens(): void {
    this.readyState = 1;
    this.onopen?.call(this as unknown as WebSocket, {} as Event);
  }
  says(frame: ServerFrame): void {
    this.onmessage?.call(this as unknown as WebSocket, { data: JSON.stringify(frame) } as MessageEvent);
  }
  closes(code: number, reason = ""): void {
    this.onclose?.call(this as unknown as WebSocket, { code, reason } as CloseEvent);
  }
}

describe("a live view", () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  function follow(credential: Credential = { key: "k" }, topic: () => Promise<Topic> = async () => ({}) as Topic) {
    const sockets: FakeSocket[] = [];
    const states: LiveState[] = [];
    const records: ApiRecord[] = [];
    const live = new Live(
      {
        client: { credential, topic, ticket: async () => ({ ticket: "one-time", expires_at: 0 }) },
        topic: "t",
        from: "latest",
        window: 8,
        page: "https://example.test/console/#/topics/t/live",
        connect: (url, protocols) => {
          const socket = new FakeSocket(url, protocols);
          sockets.push(socket);
          return socket;
        },
      },
      { state: (state) => states.push(state), records: (more) => records.push(...more), gap: () => undefined },
    );
    live.start();
    const socket = async (index: number): Promise<FakeSocket> => {
      await vi.advanceTimersByTimeAsync(20_000 * (index === 0 ? 0 : 1));
      const found = sockets[index];
      if (found === undefined) throw new Error(`socket ${index} was not opened`);
      return found;
    };
    return { live, sockets, states, records, socket };
  }

  const record = (offset: number): ApiRecord => ({ topic: "t", partition: 0, offset, timestamp: 0, text: "x" });
  const batch = (cursor: string, ...offsets: number[]): ServerFrame => ({
    type: "records",
    sub: "console",
    records: offsets.map(record),
    cursor,
  });

  test("sends an API key in the subprotocol and the root key's ticket in the address", async () => {
    const byKey = await follow({ key: "a?>" }).socket(0);
    expect(byKey.url).toBe("wss://example.test/v1/ws");
    expect(byKey.protocols).toEqual(["plinth.v1.json", `bearer.${base64Url("a?>")}`]);
    const byRoot = await follow({ key: "root", tenant: "acme" }).socket(0);
    expect(byRoot.url).toBe("wss://example.test/v1/ws?ticket=one-time");
    expect(byRoot.protocols).toEqual(["plinth.v1.json"]);
  });

  test("goes on from its cursor after the connection broke", async () => {
    const { socket, records, states } = follow();
    const first = await socket(0);
    first.opens();
    expect(first.sent[0]).toMatchObject({ type: "subscribe", topics: ["t"], from: "latest", credit: 8 });
    first.says({ type: "subscribed", id: "console", sub: "console", cursor: "c0" });
    first.says(batch("c2", 0, 1));
    first.closes(1006);
    expect(states.at(-1)).toMatchObject({ kind: "waiting" });
    const second = await socket(1);
    second.opens();
    // Two records are not taken yet, so two fewer may come.
    expect(second.sent[0]).toMatchObject({ type: "subscribe", from: "cursor:c2", credit: 6 });
    second.says(batch("c3", 2));
    expect(records.map(({ offset }) => offset)).toEqual([0, 1, 2]);
  });

  test("grants credit for what was taken and for nothing else", async () => {
    const { live, socket } = follow();
    const only = await socket(0);
    only.opens();
    only.says(batch("c4", 0, 1, 2, 3));
    live.taken(1);
    expect(only.sent.length).toBe(1);
    live.taken(3);
    expect(only.sent.at(-1)).toEqual({ type: "credit", sub: "console", n: 4 });
  });

  test("what is taken while it connects counts when it is open", async () => {
    const { live, socket } = follow();
    const first = await socket(0);
    first.opens();
    first.says(batch("c8", 0, 1, 2, 3, 4, 5, 6, 7));
    first.closes(1006);
    const second = await socket(1);
    live.taken(8);
    second.opens();
    expect(second.sent).toEqual([expect.objectContaining({ type: "subscribe", credit: 8 })]);
  });

  test("a goaway is followed after the time and from the cursor that it names", async () => {
    const { socket, states } = follow();
    const first = await socket(0);
    first.opens();
    first.says({ type: "goaway", reconnect_in_ms: 700, reason: "drain", cursors: { console: "c9" } });
    expect(states.at(-1)).toEqual({ kind: "waiting", retryInMs: 700, reason: "drain" });
    expect(first.closed).toBe(true);
    const second = await socket(1);
    second.opens();
    expect(second.sent[0]).toMatchObject({ from: "cursor:c9" });
  });

  test("a closed stream is told from one that is still", async () => {
    const { socket, states } = follow();
    const only = await socket(0);
    only.opens();
    only.says({ type: "caught_up", sub: "console", cursor: "c1" });
    expect(states.at(-1)).toEqual({ kind: "live" });
    only.says({ type: "closed", sub: "console", topic: "t" });
    expect(states.at(-1)).toEqual({ kind: "closed" });
    only.says({ type: "caught_up", sub: "console", cursor: "c1" });
    expect(states.at(-1)).toEqual({ kind: "closed" });
    only.says({ type: "end", sub: "console", topic: "t" });
    expect(states.at(-1)).toEqual({ kind: "ended" });
  });

  test("a refusal ends it, a lack of capacity does not", async () => {
    const refused = follow();
    const one = await refused.socket(0);
    one.opens();
    one.says({ type: "error", id: "console", problem: { ...problem, code: "invalid_cursor", status: 400 } });
    expect(refused.states.at(-1)).toMatchObject({ kind: "failed", failure: { code: "invalid_cursor" } });
    await vi.advanceTimersByTimeAsync(60_000);
    expect(refused.sockets.length).toBe(1);

    const busy = follow();
    const two = await busy.socket(0);
    two.opens();
    two.says({ type: "error", problem: { ...problem, code: "overloaded", status: 503 } });
    expect(busy.states.at(-1)).toMatchObject({ kind: "waiting" });
  });

  test("a credential that ended while it was open is told", async () => {
    const { socket, states } = follow();
    (await socket(0)).closes(4401, "the key was deleted");
    expect(states.at(-1)).toMatchObject({ kind: "failed", failure: { code: "unauthenticated" } });
  });

  test("a topic that may not be read is a failure and no socket is opened", async () => {
    const failure = { detail: "no topic t", code: "not_found", status: 404 };
    const { sockets, states } = follow({ key: "k" }, () => Promise.reject(new ApiError(failure)));
    await vi.advanceTimersByTimeAsync(0);
    expect(states.at(-1)).toEqual({ kind: "failed", failure });
    expect(sockets).toEqual([]);
  });

  test("a silent connection is given up", async () => {
    const { socket, states, sockets } = follow();
    (await socket(0)).opens();
    await vi.advanceTimersByTimeAsync(61_000);
    expect(sockets[0]?.sent.filter(({ type }) => type === "ping").length).toBe(2);
    expect(states).toContainEqual(expect.objectContaining({ kind: "waiting", reason: "the server is silent" }));
  });

  test("nothing happens after it was stopped", async () => {
    const { live, socket, states, sockets } = follow();
    const first = await socket(0);
    live.stop();
    const before = states.length;
    first.closes(1006);
    await vi.advanceTimersByTimeAsync(60_000);
    expect(states.length).toBe(before);
    expect(sockets.length).toBe(1);
  });
});
