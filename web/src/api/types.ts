// The names by which the console knows the types of the API, all of them generated from ../openapi.
import type { components as frames } from "./frames";
import type { components as bodies } from "./openapi";

type Bodies = bodies["schemas"];
type Frames = frames["schemas"];

export type ApiRecord = Bodies["Record"];
export type Durability = Bodies["Durability"];
export type PartitionBounds = Bodies["PartitionBounds"];
export type Problem = Bodies["Problem"];
export type PublishRecord = Bodies["PublishRecord"];
export type PublishResults = Bodies["PublishResults"];
export type Receipt = Bodies["Receipt"];
export type RecordPage = Bodies["RecordPage"];
export type Retention = Bodies["Retention"];
export type Ticket = Bodies["Ticket"];
export type Topic = Bodies["Topic"];
export type TopicList = Bodies["ListPage_Topic"];
export type TopicRequest = Bodies["TopicRequest"];
export type TopicStream = Bodies["TopicStream"];

export type ClientFrame = Frames["ClientFrame"];
export type ServerFrame = Frames["ServerFrame"];
