// Rates of topics, from what their sizes were at successive samples of the list.
import type { Topic } from "../api/types";

/** What a topic receives; null until two samples are there. */
export interface Rate {
  recordsPerSecond: number | null;
  bytesPerSecond: number | null;
}

interface Sample {
  atMs: number;
  createdAt: number;
  records: number;
  bytes: number;
}

/** Over how long a rate is taken. */
const WINDOW_MS = 10_000;

/** Keeps the samples of the last seconds of each listed topic. */
export class RateMeter {
  private samples = new Map<string, Sample[]>();

  /** Takes a sample at `atMs` of any steady clock and forgets the topics that are not in it. */
  sample(topics: readonly Topic[], atMs: number): void {
    const next = new Map<string, Sample[]>();
    for (const topic of topics) {
      const now = { atMs, createdAt: topic.created_at, records: topic.records, bytes: topic.bytes };
      const last = this.samples.get(topic.name)?.at(-1);
      // A topic that was made again, or one that became smaller, starts anew.
      const continues = last !== undefined && last.createdAt === now.createdAt && last.records <= now.records;
      const kept = continues ? keepWindow(this.samples.get(topic.name) ?? [], atMs) : [];
      next.set(topic.name, [...kept, now]);
    }
    this.samples = next;
  }

  rate(name: string): Rate {
    const samples = this.samples.get(name) ?? [];
    const first = samples.at(0);
    const last = samples.at(-1);
    if (first === undefined || last === undefined || last.atMs <= first.atMs) {
      return { recordsPerSecond: null, bytesPerSecond: null };
    }
    const seconds = (last.atMs - first.atMs) / 1000;
    return {
      recordsPerSecond: (last.records - first.records) / seconds,
      bytesPerSecond: Math.max(0, last.bytes - first.bytes) / seconds,
    };
  }
}

/** The samples of the window, and the newest one before it, so that a rate spans at least the window. */
function keepWindow(samples: Sample[], atMs: number): Sample[] {
  const inside = samples.findIndex((sample) => sample.atMs > atMs - WINDOW_MS);
  if (inside === -1) return samples.slice(-1);
  return samples.slice(Math.max(0, inside - 1));
}
