// The names by which the console knows the types of the API, all of them generated from ../openapi.
import type { components as frames } from "./frames";

type Frames = frames["schemas"];

export type ApiRecord = Frames["Record"];
export type ClientFrame = Frames["ClientFrame"];
export type Problem = Frames["Problem"];
export type PublishRecord = Frames["PublishRecord"];
export type Receipt = Frames["Receipt"];
export type ServerFrame = Frames["ServerFrame"];

export interface Topic {
  name: string;
  partitions: number;
  durability: "object";
  max_record_bytes: number;
  created_at: number;
  bytes: number;
  records: number;
  partition_bounds?: PartitionBounds[];
}
export interface PartitionBounds {
  partition: number;
  start: number;
  tail: number;
  bytes: number;
}
export interface TopicRequest {
  partitions?: number;
  max_record_bytes?: number;
}
export interface TopicList {
  data: Topic[];
  next_cursor: string | null;
}
export interface RecordPage {
  records: ApiRecord[];
  next: string;
  caught_up: boolean;
}
export interface Ticket {
  ticket: string;
  expires_at: number;
}
