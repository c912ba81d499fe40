// Where the page is, in the part of its address after `#`, which is never sent to a server.

export const TABS = ["live", "records", "publish", "settings"] as const;
export type Tab = (typeof TABS)[number];

export type Route = { view: "topics" } | { view: "topic"; name: string; tab: Tab };

/** The route of an address; an unknown one is the list of topics. */
export function parseRoute(hash: string): Route {
  const [root, encoded, tab] = hash.replace(/^#\/?/, "").split("/");
  if (root !== "topics" || encoded === undefined || encoded === "") return { view: "topics" };
  try {
    return { view: "topic", name: decodeURIComponent(encoded), tab: TABS.find((known) => known === tab) ?? "live" };
  } catch {
    return { view: "topics" };
  }
}

/** The address of a topic. */
export function topicHref(name: string, tab: Tab): string {
  return `#/topics/${encodeURIComponent(name)}/${tab}`;
}
