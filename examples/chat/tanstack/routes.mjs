// A chat by TanStack AI. It has one stream with the chunks of all its messages, questions and answers, to which all its pages
// listen; it is never closed.
import { randomUUID } from "node:crypto";
import { sanitizeChunkForStorage, toMessageEchoChunks } from "@durable-streams/tanstack-ai-transport";
import { answerTo } from "../model.mjs";
import { open, write } from "../plinth.mjs";

export const ROUTES = { "PUT chat": start, "POST chat": ask };

const nameOf = (chat) => `chats/tanstack/${chat}`;

/** Makes sure that there is something to listen to. */
async function start(chat) {
  await open(nameOf(chat));
  return new Response(null, { status: 204 });
}

/** Takes a question down, and begins to write the answer behind it. */
async function ask(chat, { messages }) {
  const question = messages.at(-1);
  const handle = await open(nameOf(chat));
  await write(handle, toMessageEchoChunks(question), { last: false });
  write(handle, chunksOf(chat, question), { last: false }).catch(console.error);
  return new Response(null, { status: 202 });
}

/** What `chat()` of @tanstack/ai yields with the adapter of your provider. */
async function* chunksOf(chat, question) {
  const [runId, messageId] = [randomUUID(), randomUUID()];
  const text = question.parts.map((part) => part.content ?? "").join("");
  yield { type: "RUN_STARTED", runId, threadId: chat };
  yield { type: "TEXT_MESSAGE_START", messageId, role: "assistant" };
  for await (const delta of answerTo(text)) yield sanitizeChunkForStorage({ type: "TEXT_MESSAGE_CONTENT", messageId, delta });
  yield { type: "TEXT_MESSAGE_END", messageId };
  yield { type: "RUN_FINISHED", runId, threadId: chat, finishReason: "stop" };
}
