// Which offsets a page of older records covers.
import type { PartitionBounds } from "../api/types";

export const PAGE_RECORDS = 50;

/** A half-open range of offsets that begins at `offset`. */
export interface Range {
  offset: number;
  limit: number;
}

type Bounds = Pick<PartitionBounds, "start" | "tail">;

/** The first page that is kept. */
export function earliest(bounds: Bounds): Range {
  return { offset: bounds.start, limit: PAGE_RECORDS };
}

/** The page that ends at the tail. */
export function latest(bounds: Bounds): Range {
  return older(bounds, bounds.tail) ?? earliest(bounds);
}

/** The page that ends before `first`; null when nothing older is kept. */
export function older(bounds: Bounds, first: number): Range | null {
  const end = Math.min(first, bounds.tail);
  if (end <= bounds.start) return null;
  const offset = Math.max(bounds.start, end - PAGE_RECORDS);
  return { offset, limit: end - offset };
}

/** The page that begins at `next`; null when nothing newer is there. */
export function newer(bounds: Bounds, next: number): Range | null {
  return next < bounds.tail ? { offset: Math.max(next, bounds.start), limit: PAGE_RECORDS } : null;
}

/** The page that begins at an offset which a person typed; null when it is not one. */
export function at(text: string): Range | null {
  if (!/^\d{1,15}$/.test(text.trim())) return null;
  return { offset: Number(text), limit: PAGE_RECORDS };
}
