// The suite knows no credentials: each request gets the node's key, but those that come with a token of their own.
const plain = globalThis.fetch;

globalThis.fetch = (input, init) => {
  const headers = new Headers(init?.headers ?? (input instanceof Request ? input.headers : undefined));
  if (!headers.has("Authorization")) headers.set("Authorization", `Bearer ${process.env.STREAMS_KEY}`);
  return plain(input, { ...init, headers });
};
