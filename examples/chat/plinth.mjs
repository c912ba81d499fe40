// All that these chats need of Plinth: a stream is created and written to once, read to its end, and passed on to a page.
//
// The key stays in this process. Pages read through `passOn`, which is also where an application checks whose chat it is.
import { randomUUID } from "node:crypto";
import { pipeline } from "node:stream/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { DurableStream, IdempotentProducer, stream } from "@durable-streams/client";

const { PLINTH_URL = "http://127.0.0.1:8080", PLINTH_KEY } = process.env;
if (PLINTH_KEY === undefined) throw new Error("PLINTH_KEY is not set: an API key that may publish to, subscribe to and manage chats/**");
const headers = { Authorization: `Bearer ${PLINTH_KEY}` };
const contentType = "application/json";
const RETRY_MS = 200;

const urlOf = (name) => `${PLINTH_URL}/v1/stream/${name}`;

/** `fetch` that asks again while Plinth is away. */
async function patientFetch(url, init) {
  for (;;) {
    const answer = await fetch(url, init).catch((error) => {
      if (init?.signal?.aborted) throw error;
    });
    if (answer !== undefined && answer.status < 500 && answer.status !== 429) return answer;
    await sleep(RETRY_MS);
  }
}

/** A stream to write to; it is made when it is not there. */
export async function open(name) {
  const handle = new DurableStream({ url: urlOf(name), headers, contentType, fetch: patientFetch });
  await handle.create();
  return handle;
}

/**
 * Writes what `source` yields, and then closes the stream when `last` is true.
 *
 * The producer numbers what it sends. So it can send again what was not answered, because Plinth has crashed or the
 * connection broke, and nothing is stored twice.
 */
export async function write(handle, source, { last }) {
  let failed;
  const onError = (error) => (failed ??= error);
  const producer = new IdempotentProducer(handle, randomUUID(), { fetch: patientFetch, onError });
  for await (const item of source) {
    if (failed !== undefined) break;
    producer.append(JSON.stringify(item));
  }
  await producer.flush();
  if (failed !== undefined) throw failed;
  if (last) await producer.close();
}

/** All items of a stream as of now, and whether it is closed; `undefined` when there is no such stream. */
export async function read(name) {
  try {
    const answer = await stream({ url: urlOf(name), headers, json: true, live: false });
    return { items: await answer.json(), closed: answer.streamClosed };
  } catch (error) {
    if (error.status === 404) return undefined;
    throw error;
  }
}

/** Answers a page's read of a stream with Plinth's answer. */
export async function passOn(name, query, request, response) {
  const gone = new AbortController();
  response.on("close", () => gone.abort());
  const wanted = { headers: { ...headers, Accept: request.headers.accept ?? "*/*" }, signal: gone.signal };
  const answer = await fetch(`${urlOf(name)}?${query}`, wanted).catch(() => undefined);
  // The page's client waits a moment and asks again.
  if (answer === undefined) return response.writeHead(503).end();
  response.writeHead(answer.status, Object.fromEntries(passedOn(answer.headers)));
  response.flushHeaders();
  if (answer.body === null) return response.end();
  const isEvents = answer.headers.get("Content-Type") === "text/event-stream";
  // An error here is an end on one of the two sides, which the other one sees, too.
  await pipeline(isEvents ? wholeSteps(answer.body) : answer.body, response).catch(() => {});
}

function passedOn(all) {
  return [...all].filter(([name]) => /^(stream-.*|content-type|cache-control|etag)$/.test(name));
}

/**
 * Server-sent events up to the last one that tells a position, also when Plinth breaks off in the middle. The page's client
 * goes on from that position, and would see twice what came after it.
 */
async function* wholeSteps(body) {
  const decoder = new TextDecoder();
  let rest = "";
  let step = "";
  try {
    for await (const piece of body) {
      const events = (rest + decoder.decode(piece, { stream: true })).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        step += `${event}\n\n`;
        if (!event.startsWith("event: control")) continue;
        yield step;
        step = "";
      }
    }
  } catch {
    // It has broken off.
  }
}
