import { createDurableChatTransport } from "@durable-streams/aisdk-transport";
import { AbstractChat } from "ai";
import { chat as id, onQuestion, show } from "../page.mjs";

const api = `chat/${id}`;

/** The state of a chat without a framework: whatever changes it, the page shows it. */
class State {
  #messages;
  #status = "ready";

  constructor(messages) {
    this.#messages = messages;
    this.#show();
  }

  #show() {
    show(this.#messages, this.#status);
  }

  get messages() {
    return this.#messages;
  }
  set messages(messages) {
    this.#messages = messages;
    this.#show();
  }

  get status() {
    return this.#status;
  }
  set status(status) {
    this.#status = status;
    this.#show();
  }

  pushMessage(message) {
    this.messages = [...this.#messages, message];
  }

  popMessage() {
    this.messages = this.#messages.slice(0, -1);
  }

  replaceMessage(index, message) {
    this.messages = this.#messages.with(index, message);
  }

  snapshot(thing) {
    return structuredClone(thing);
  }
}

class Chat extends AbstractChat {}

const messages = await (await fetch(api)).json();
const transport = createDurableChatTransport({ api, reconnectApi: `${api}/stream` });
const chat = new Chat({ id, transport, state: new State(messages) });
onQuestion((text) => chat.sendMessage({ text }));
// After a reload in the middle of an answer, this is what brings the answer back.
await chat.resumeStream();
