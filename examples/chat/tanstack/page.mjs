import { durableStreamConnection } from "@durable-streams/tanstack-ai-transport";
import { ChatClient } from "@tanstack/ai-client";
import { chat, onQuestion, show } from "../page.mjs";

await fetch(`chat/${chat}`, { method: "PUT" });

// The stream tells all there was, as a snapshot, and then what is written, whoever has asked for it.
const connection = durableStreamConnection({ sendUrl: `chat/${chat}`, readUrl: `streams/${chat}` });
let [messages, status] = [[], "ready"];
const update = () => show(messages, status);
const client = new ChatClient({
  threadId: chat,
  connection,
  onMessagesChange: (now) => {
    messages = now;
    update();
  },
  onSessionGeneratingChange: (generating) => {
    status = generating ? "streaming" : "ready";
    update();
  },
});
client.subscribe();
onQuestion((text) => client.sendMessage(text));
update();
