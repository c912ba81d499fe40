// The credential, kept by the tab until it is closed or signed out. It is in no address, no cookie and no other tab.
import type { Credential } from "../api/client";

const NAME = "plinth.credential";

/** The parts of `sessionStorage` that are used. */
export type Store = Pick<Storage, "getItem" | "setItem" | "removeItem">;

export function loadCredential(store: Store): Credential | null {
  try {
    const kept = JSON.parse(store.getItem(NAME) ?? "null") as Partial<Credential> | null;
    if (typeof kept?.key !== "string" || kept.key === "") return null;
    return kept.tenant ? { key: kept.key, tenant: kept.tenant } : { key: kept.key };
  } catch {
    return null;
  }
}

export function keepCredential(store: Store, credential: Credential): void {
  store.setItem(NAME, JSON.stringify(credential));
}

export function forgetCredential(store: Store): void {
  store.removeItem(NAME);
}
