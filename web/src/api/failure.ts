// One shape for everything that can go wrong, so that every view shows it in the same way.
import type { Problem } from "./types";

/** Why something did not work, in words for people. */
export interface Failure {
  /** What happened. */
  detail: string;
  /** The API's code, or `network` when no answer came. */
  code: string;
  /** The HTTP status; 0 when no answer came. */
  status: number;
  /** The id under which the server's log knows the request. */
  requestId?: string;
  /** For a publish: what is known about the records. */
  outcome?: "not_stored" | "unknown";
  /** For an offset that is no longer kept: the first one that is. */
  start?: number;
  /** For an offset above the tail: the tail. */
  tail?: number;
}

/** A failure that is thrown. */
export class ApiError extends Error {
  constructor(readonly failure: Failure) {
    super(failure.detail);
    this.name = "ApiError";
  }
}

/** The failure in a problem document. */
export function failureOfProblem(problem: Problem, requestId?: string | null): Failure {
  const failure: Failure = { detail: problem.detail || problem.title, code: problem.code, status: problem.status };
  const id = problem.request_id ?? requestId;
  if (id) failure.requestId = id;
  if (problem.outcome) failure.outcome = problem.outcome;
  if (typeof problem.start === "number") failure.start = problem.start;
  if (typeof problem.tail === "number") failure.tail = problem.tail;
  return failure;
}

/** The failure in an answer that is not a success, whatever its body is. */
export async function failureOfResponse(response: Response): Promise<Failure> {
  const requestId = response.headers.get("x-request-id");
  const body = await response.text().catch(() => "");
  try {
    const problem = JSON.parse(body) as Partial<Problem> | null;
    if (problem !== null && typeof problem.code === "string" && typeof problem.detail === "string") {
      return failureOfProblem({ type: "", title: "", ...problem, status: response.status } as Problem, requestId);
    }
  } catch {
    // Not a problem document: a proxy may have answered.
  }
  const failure: Failure = {
    detail: `the server answered ${response.status} ${response.statusText}`.trim(),
    code: "unexpected_answer",
    status: response.status,
  };
  if (requestId) failure.requestId = requestId;
  return failure;
}

/** The failure in anything that was thrown. */
export function failureOf(thrown: unknown): Failure {
  if (thrown instanceof ApiError) return thrown.failure;
  if (thrown instanceof TypeError) {
    return { detail: "the server cannot be reached", code: "network", status: 0 };
  }
  return { detail: thrown instanceof Error ? thrown.message : String(thrown), code: "console", status: 0 };
}

/** True when the same request may succeed later without anybody changing anything. */
export function mayPass(failure: Failure): boolean {
  return failure.code === "network" || failure.status === 408 || failure.status === 429 || failure.status >= 500;
}
