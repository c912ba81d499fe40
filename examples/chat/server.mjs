// The application's server: two pages, what they ask for, and nothing that is kept here.
import { createServer } from "node:http";
import { build } from "esbuild";
import * as aiSdk from "./ai-sdk/routes.mjs";
import { passOn } from "./plinth.mjs";
import * as tanstack from "./tanstack/routes.mjs";

const PORT = Number(process.env.PORT ?? 3000);
const HERE = new URL(".", import.meta.url).pathname;
const KINDS = { "ai-sdk": aiSdk, tanstack };

const page = (kind) => `<!doctype html>
<html lang="en">
  <meta charset="utf-8">
  <title>Chat by ${kind}</title>
  <link rel="icon" href="data:,">
  <style>
    body { font: 16px/1.5 system-ui, sans-serif; max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }
    [data-role="user"] { font-weight: 600; }
    input { font: inherit; width: 100%; box-sizing: border-box; padding: 0.5rem; }
  </style>
  <div id="messages"></div>
  <form><input name="question" aria-label="Question" placeholder="Ask something, then reload" autocomplete="off" required disabled></form>
  <p id="status"></p>
  <script type="module" src="page.js"></script>
</html>`;

const scripts = {};
for (const kind of Object.keys(KINDS)) {
  const options = { bundle: true, format: "esm", platform: "browser", write: false };
  const { outputFiles } = await build({ entryPoints: [`${HERE}${kind}/page.mjs`], ...options });
  scripts[kind] = outputFiles[0].text;
}

/** Answers with text of a media type. */
const send = (response, type, text) => response.writeHead(200, { "Content-Type": type, "Cache-Control": "no-store" }).end(text);

async function handle(request, response) {
  const { pathname, searchParams } = new URL(request.url, "http://localhost");
  const [, kind, what, chat, ...more] = pathname.split("/");
  const routes = KINDS[kind];
  if (pathname === "/") return send(response, "text/html", '<a href="ai-sdk/">AI SDK</a> · <a href="tanstack/">TanStack AI</a>');
  if (routes === undefined) return response.writeHead(404).end();
  if (what === "") return send(response, "text/html; charset=utf-8", page(kind));
  if (what === "page.js") return send(response, "text/javascript; charset=utf-8", scripts[kind]);
  // The id of a chat is as good as a password here. An application knows its users, and checks now whether this one may.
  if (!/^[0-9a-f-]{36}$/.test(chat)) return response.writeHead(404).end();
  const name = [`chats/${kind}`, chat, ...more].join("/");
  if (what === "streams") return passOn(name, searchParams, request, response);
  const route = routes.ROUTES[[request.method, what, ...more].join(" ")];
  if (route === undefined) return response.writeHead(404).end();
  const text = Buffer.concat(await request.toArray()).toString();
  const answer = await route(chat, text === "" ? undefined : JSON.parse(text));
  response.writeHead(answer.status, Object.fromEntries(answer.headers)).end(await answer.text());
}

const server = createServer((request, response) => {
  handle(request, response).catch((error) => {
    console.error(error);
    if (!response.headersSent) response.writeHead(500);
    response.end();
  });
});
server.listen(PORT, "127.0.0.1", () => console.log(`http://127.0.0.1:${server.address().port}`));
