// A proxy in front of a node that adds the key and makes the faults that the suite of clients asks for.
//
// The suite describes a fault by POST to `…/_test/inject-error`; DELETE takes all of them away.
import { once } from "node:events";
import { createServer, request as ask } from "node:http";
import { setTimeout as after } from "node:timers/promises";

const ROOT = "/v1/stream";
const CONTROL = `${ROOT}/_test/inject-error`;

export class FaultyProxy {
  /** What is to go wrong, by the path of a stream. */
  faults = new Map();

  constructor(server) {
    this.server = server;
    this.listener = createServer((request, response) => {
      this.handle(request, response).catch(() => response.destroy());
    });
  }

  async start() {
    await once(this.listener.listen(0, "127.0.0.1"), "listening");
    this.url = `http://127.0.0.1:${this.listener.address().port}`;
  }

  stop() {
    this.listener.close();
    this.listener.closeAllConnections();
  }

  async handle(request, response) {
    const { pathname } = new URL(request.url, this.url);
    if (pathname === CONTROL) return this.control(request, response);
    const fault = this.take(request.method, pathname.slice(ROOT.length));
    if (fault.delayMs) await after(fault.delayMs + Math.random() * (fault.jitterMs ?? 0));
    if (fault.dropConnection) return request.socket.destroy();
    if (fault.status) {
      const wait = fault.retryAfter === undefined ? {} : { "Retry-After": String(fault.retryAfter) };
      return response.writeHead(fault.status, { "Content-Type": "text/plain", ...wait }).end("A fault that was asked for");
    }
    return this.pass(request, response, fault);
  }

  async control(request, response) {
    if (request.method === "DELETE") {
      this.faults.clear();
    } else {
      const { path, count = 1, ...fault } = JSON.parse(Buffer.concat(await request.toArray()));
      this.faults.set(path, { left: count, ...fault });
    }
    response.end();
  }

  /** The fault that this request gets; one without any members is none. */
  take(method, path) {
    const fault = this.faults.get(path);
    if (fault === undefined || (fault.method ?? method) !== method) return {};
    if (Math.random() >= (fault.probability ?? 1)) return {};
    fault.left -= 1;
    if (fault.left === 0) this.faults.delete(path);
    return fault;
  }

  async pass(request, response, fault) {
    // Some cases send tokens that they have made up, and clients go on to send them.
    const headers = { ...request.headers, authorization: `Bearer ${this.server.key}` };
    const onward = ask(this.server.url + request.url, { method: request.method, headers });
    response.on("close", () => onward.destroy());
    onward.on("error", () => response.destroy());
    request.pipe(onward);
    const [answer] = await once(onward, "response");
    if (fault.truncateBodyBytes || fault.corruptBody) return spoil(answer, response, fault);
    response.writeHead(answer.statusCode, answer.headers);
    if (fault.injectSseEvent && answer.headers["content-type"] === "text/event-stream") {
      response.write(`event: ${fault.injectSseEvent.eventType}\ndata: ${fault.injectSseEvent.data}\n\n`);
    }
    response.flushHeaders();
    answer.pipe(response);
  }
}

/** Passes an answer on with a body that is cut off, or that begins with what is in no format. */
async function spoil(answer, response, { truncateBodyBytes, corruptBody }) {
  let body = Buffer.concat(await answer.toArray());
  if (truncateBodyBytes) body = body.subarray(0, truncateBodyBytes);
  if (corruptBody) body.fill(0x7e, 0, Math.ceil(body.length / 10));
  const { "transfer-encoding": _, ...headers } = answer.headers;
  response.writeHead(answer.statusCode, { ...headers, "content-length": body.length }).end(body);
}
