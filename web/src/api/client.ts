// The REST calls of the console. Knows nothing of the page; the credential goes into a header and nowhere else.
import { parseExactly } from "../lib/json";
import { ApiError, failureOfResponse } from "./failure";
import type { Problem, PublishRecord, PublishResults, Receipt, RecordPage, Ticket, Topic, TopicList, TopicRequest } from "./types";

/** Who signed in. The root key acts inside a tenant that it names; an API key belongs to one. */
export interface Credential {
  key: string;
  tenant?: string;
}

/** Which records a page shows: `limit` records of `partition` from `offset` on. */
export interface PageRequest {
  partition: number;
  offset: number;
  limit: number;
}

const BATCH_TYPE = "application/vnd.plinth.batch+json";

export class Client {
  constructor(
    readonly credential: Credential,
    private readonly fetcher: typeof fetch = (input, init) => fetch(input, init),
  ) {}

  listTopics(prefix: string, cursor: string | null, limit: number, signal?: AbortSignal): Promise<TopicList> {
    const query = new URLSearchParams({ limit: String(limit) });
    if (prefix !== "") query.set("prefix", prefix);
    if (cursor !== null) query.set("cursor", cursor);
    return this.call<TopicList>("GET", `/v1/topics?${query}`, signal);
  }

  async topic(name: string, signal?: AbortSignal): Promise<Topic> {
    return this.call<Topic>("GET", topicPath(name), signal);
  }

  /** Creates a topic; one that exists with other settings is a conflict. `made` tells whether it is new. */
  async createTopic(name: string, request: TopicRequest): Promise<{ topic: Topic; made: boolean }> {
    const response = await this.send("PUT", topicPath(name), undefined, JSON.stringify(request), "application/json");
    return { topic: (await response.json()) as Topic, made: response.status === 201 };
  }

  async deleteTopic(name: string): Promise<void> {
    await this.send("DELETE", topicPath(name));
  }

  async page(name: string, request: PageRequest, signal?: AbortSignal): Promise<RecordPage> {
    const query = new URLSearchParams({
      partition: String(request.partition),
      from: `offset:${request.offset}`,
      limit: String(request.limit),
    });
    return this.call<RecordPage>("GET", `${topicPath(name)}/records?${query}`, signal);
  }

  /** Publishes one record. */
  async publish(name: string, record: PublishRecord): Promise<Receipt> {
    const body = JSON.stringify({ records: [record] });
    const response = await this.send("POST", `${topicPath(name)}/records`, undefined, body, BATCH_TYPE);
    const answer = (await response.json()) as Receipt | PublishResults;
    if (!("results" in answer)) return answer;
    const [result] = answer.results;
    if (result === undefined) throw new Error("the answer to the publish has no result");
    if ("problem" in result) throw new ApiError(await failureOfResponse(problemResponse(result.problem)));
    return result;
  }

  /** A ticket for one connection, for the credential that cannot go into a subprotocol. */
  ticket(): Promise<Ticket> {
    return this.call<Ticket>("POST", "/v1/tickets");
  }

  private async call<T>(method: string, path: string, signal?: AbortSignal): Promise<T> {
    const response = await this.send(method, path, signal);
    return parseExactly(await response.text()) as T;
  }

  private async send(
    method: string,
    path: string,
    signal?: AbortSignal,
    body?: string,
    contentType?: string,
  ): Promise<Response> {
    const headers = new Headers({ Accept: "application/json" });
    try {
      headers.set("Authorization", `Bearer ${this.credential.key}`);
      if (this.credential.tenant) headers.set("Plinth-Tenant", this.credential.tenant);
    } catch {
      const detail = "the key or the tenant name has characters that do not belong there";
      throw new ApiError({ detail, code: "unauthenticated", status: 401 });
    }
    if (contentType !== undefined) headers.set("Content-Type", contentType);
    const init: RequestInit = { method, headers, cache: "no-store", credentials: "omit", redirect: "error" };
    if (signal !== undefined) init.signal = signal;
    if (body !== undefined) init.body = body;
    const response = await this.fetcher(path, init);
    if (!response.ok) throw new ApiError(await failureOfResponse(response));
    return response;
  }
}

/** The path of a topic; a `/` in its name is written `%2F`. */
export function topicPath(name: string): string {
  // Browsers take these for steps up the path, however they are written, and would call something else.
  if (name === "" || name === "." || name === "..") {
    throw new ApiError({ detail: `"${name}" is not a topic name`, code: "invalid_topic_name", status: 400 });
  }
  return `/v1/topics/${encodeURIComponent(name)}`;
}

function problemResponse(problem: Problem): Response {
  return new Response(JSON.stringify(problem), { status: problem.status });
}
