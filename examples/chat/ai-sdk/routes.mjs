// A chat by the AI SDK. It has a stream of its own, with one item per turn: the question, and the name of the answer's stream.
// An answer's stream has the chunks of the AI SDK and is closed behind the last one.
import { randomUUID } from "node:crypto";
import { readUIMessageStream, streamText } from "ai";
import { MockLanguageModelV3 } from "ai/test";
import { answerTo } from "../model.mjs";
import { open, read, write } from "../plinth.mjs";

export const ROUTES = { "GET chat": history, "POST chat": ask, "GET chat stream": resume };

const nameOf = (chat, answer) => `chats/ai-sdk/${chat}/${answer}`;
const pointTo = (chat, answer, status) => {
  const streamUrl = `/ai-sdk/streams/${chat}/${answer}`;
  return Response.json({ streamUrl }, { status, headers: { Location: streamUrl } });
};

/** Put the model of your provider here. */
const model = (question) => new MockLanguageModelV3({ doStream: async () => ({ stream: ReadableStream.from(parts(question)) }) });

async function* parts(question) {
  yield { type: "stream-start", warnings: [] };
  yield { type: "text-start", id: "1" };
  for await (const delta of answerTo(question)) yield { type: "text-delta", id: "1", delta };
  yield { type: "text-end", id: "1" };
  const usage = { inputTokens: { total: 0 }, outputTokens: { total: 0 } };
  yield { type: "finish", finishReason: { unified: "stop", raw: "stop" }, usage };
}

async function turnsOf(chat) {
  return (await read(`chats/ai-sdk/${chat}`))?.items ?? [];
}

/** The questions of a chat, and the answers that are whole. One that is not comes by `resume`. */
async function history(chat) {
  const messages = [];
  for (const { question, answer } of await turnsOf(chat)) {
    messages.push(question);
    const written = await read(nameOf(chat, answer));
    if (written?.closed) messages.push(await messageOf(written.items));
  }
  return Response.json(messages);
}

async function messageOf(chunks) {
  let message;
  for await (const state of readUIMessageStream({ stream: ReadableStream.from(chunks) })) message = state;
  return message;
}

/** Takes a question down, and begins to write the answer. */
async function ask(chat, { messages }) {
  const question = messages.at(-1);
  const answer = randomUUID();
  const handle = await open(nameOf(chat, answer));
  await write(await open(`chats/ai-sdk/${chat}`), [{ question, answer }], { last: false });
  const text = question.parts.map((part) => part.text ?? "").join("");
  const chunks = streamText({ model: model(text), prompt: text }).toUIMessageStream({ generateMessageId: () => answer });
  write(handle, chunks, { last: true }).catch(console.error);
  return pointTo(chat, answer, 201);
}

/** Where the answer is read that is being written. */
async function resume(chat) {
  const answer = (await turnsOf(chat)).at(-1)?.answer;
  const written = answer === undefined ? undefined : await read(nameOf(chat, answer));
  return written === undefined || written.closed ? new Response(null, { status: 204 }) : pointTo(chat, answer, 200);
}
