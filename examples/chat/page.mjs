// What both pages have in common: the chat of this page's address, and how messages look.
export const chat = (location.hash ||= `#${crypto.randomUUID()}`).slice(1);

/** Shows messages, and as `status` whether an answer is being written. */
export function show(messages, status) {
  const shown = messages.map(({ role, parts }) => {
    const paragraph = document.createElement("p");
    paragraph.dataset.role = role;
    paragraph.textContent = parts.map((part) => (part.type === "text" ? (part.text ?? part.content) : "")).join("");
    return paragraph;
  });
  document.querySelector("#messages").replaceChildren(...shown);
  document.querySelector("#status").textContent = status;
}

/** From now on questions can be asked. */
export function onQuestion(ask) {
  document.querySelector("input").disabled = false;
  document.querySelector("form").addEventListener("submit", (event) => {
    event.preventDefault();
    ask(new FormData(event.target).get("question"));
    event.target.reset();
  });
}
