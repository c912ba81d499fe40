// Written by `npm run types` from openapi/frames.schema.json; do not edit.

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description The credential, when none came with the upgrade; due within 10 s. */
        AuthFrame: {
            /** @description Repeated in an `error` that answers it. */
            id?: string | null;
            /** @description An API key or a token (JWT). */
            token: string;
            /** @description `auth` */
            type: components["schemas"]["AuthType"];
        };
        /** @enum {string} */
        AuthType: "auth";
        /** @description A frame from the client. */
        ClientFrame: components["schemas"]["AuthFrame"] | components["schemas"]["SubscribeFrame"] | components["schemas"]["UnsubscribeFrame"] | components["schemas"]["CreditFrame"] | components["schemas"]["PublishFrame"] | components["schemas"]["RefreshFrame"] | components["schemas"]["PingFrame"];
        /** @description The limits of one connection. */
        ConnectionLimits: {
            /** @description Most records in one publish. */
            batch_records_max: number;
            /** @description Largest message from the client, in bytes. */
            message_bytes_max: number;
            /** @description Largest payload of one record, in bytes. */
            record_bytes_max: number;
            /** @description Most subscriptions. */
            subscriptions_max: number;
            /** @description Most topics and patterns of one subscription. */
            topics_max: number;
        };
        /** @description Allow more records. */
        CreditFrame: {
            /**
             * Format: int64
             * @description How many more records.
             */
            n: number;
            /** @description The subscription; it must have been given a credit when it began. */
            sub: string;
            /** @description `credit` */
            type: components["schemas"]["CreditType"];
        };
        /** @enum {string} */
        CreditType: "credit";
        /**
         * @description Where the bytes are when a publish is acknowledged. A request may ask for more than its topic's class, not for less.
         * @enum {string}
         */
        Durability: "object" | "local" | "memory";
        /**
         * @description Why a request failed. The list is closed and its names are stable.
         * @enum {string}
         */
        ErrorCode: "invalid_request" | "unknown_field" | "invalid_topic_name" | "invalid_cursor" | "unauthenticated" | "forbidden" | "tenant_suspended" | "not_found" | "method_not_allowed" | "not_acceptable" | "conflict" | "tail_mismatch" | "sequence_mismatch" | "fenced" | "producer_fenced" | "closed" | "content_type_mismatch" | "offset_trimmed" | "gone" | "offset_above_tail" | "too_large" | "unsupported_media_type" | "unprocessable" | "idempotency_key_reused" | "request_timeout" | "quota_exceeded" | "overloaded" | "store_unavailable" | "shutting_down" | "outcome_unknown" | "internal";
        /** @description A place where reading could not continue and where it went on. */
        Gap: {
            /**
             * Format: int32
             * @description The partition.
             */
            partition: number;
            /**
             * @description Why: `lost` (a crash took records of a weaker durability class, or may have), `compacted` (later records of the same
             *     keys have superseded those in a topic with `cleanup: compact`), `expired` (the records are older than their time to
             *     live), and on streams `trimmed`, `above_tail`
             *     or `slow_consumer`.
             */
            reason: string;
            /**
             * Format: int64
             * @description The offset that was asked for.
             */
            requested: number;
            /**
             * Format: int64
             * @description The offset at which it goes on.
             */
            resumed_at: number;
            /** @description The topic. */
            topic: string;
        };
        /** @description Ask for a `pong`. */
        PingFrame: {
            /** @description Repeated in the answer. */
            id?: string | null;
            /** @description `ping` */
            type: components["schemas"]["PingType"];
        };
        /** @enum {string} */
        PingType: "ping";
        /** @description The body of every error, `application/problem+json` (RFC 9457). */
        Problem: {
            /** @description The code, stable. */
            code: components["schemas"]["ErrorCode"];
            /** @description What happened this time; names the thing and the limit. */
            detail: string;
            /**
             * Format: int64
             * @description For `fenced`: the producer's epoch that has written.
             */
            epoch?: number | null;
            error?: components["schemas"]["SubscriptionFailure"] | null;
            /**
             * Format: int64
             * @description For `sequence_mismatch`: the sequence that is due. When it is above the one that was sent, that one is stored.
             */
            expected_seq?: number | null;
            /**
             * Format: int64
             * @description For `fenced`: the highest fencing token that the partition has seen.
             */
            fencing_token?: number | null;
            outcome?: components["schemas"]["PublishOutcome"] | null;
            /** @description For `unauthenticated` with a token: what is wrong with it, one word. */
            reason?: string | null;
            /** @description The id of the request, also in `X-Request-Id` and in the log. */
            request_id?: string | null;
            /**
             * Format: int64
             * @description After how many milliseconds it may succeed, where that is known; with a random part, so that not all come back at
             *     once.
             */
            retry_after_ms?: number | null;
            /**
             * Format: int64
             * @description For `offset_trimmed`: the first offset that is kept.
             */
            start?: number | null;
            /**
             * Format: int32
             * @description The HTTP status.
             */
            status: number;
            /**
             * Format: int64
             * @description For `offset_above_tail` and `tail_mismatch`: the tail of the partition.
             */
            tail?: number | null;
            /** @description The title of the code. */
            title: string;
            /** @description A URL that explains the code, relative to the server. */
            type: string;
            /** @description For `quota_exceeded`: the quotas that are used up, by their names in `RateLimit-Policy`. */
            "violated-policies"?: string[] | null;
        };
        /** @description One publish of a producer, which counts them. */
        Producer: {
            /**
             * Format: int64
             * @description Its incarnation: a later one ends those before it.
             */
            epoch: number;
            /** @description Names it in the partition. 1 to 255 visible ASCII characters. */
            id: string;
            /**
             * Format: int64
             * @description The number of this publish within the epoch, from 0.
             */
            seq: number;
        };
        /** @description Publish records. */
        PublishFrame: {
            durability?: components["schemas"]["Durability"] | null;
            /**
             * Format: int64
             * @description As the header `Expected-Tail`.
             */
            expected_tail?: number | null;
            /**
             * Format: int64
             * @description As the header `Fencing-Token`.
             */
            fencing_token?: number | null;
            /** @description Repeated in the answer. At most 255 bytes. */
            id: string;
            /** @description As the header `Idempotency-Key`. */
            idempotency_key?: string | null;
            /**
             * Format: int32
             * @description The partition of all records; without it keys choose.
             */
            partition?: number | null;
            producer?: components["schemas"]["Producer"] | null;
            /** @description As in a batch. */
            records: components["schemas"]["PublishRecord"][];
            /** @description The topic. */
            topic: string;
            /** @description `publish` */
            type: components["schemas"]["PublishType"];
        };
        /**
         * @description What is known about the records of a failed publish.
         * @enum {string}
         */
        PublishOutcome: "not_stored" | "unknown";
        /** @description One record of a batch. At most one of `value`, `text` and `base64` is given; none means an empty payload. */
        PublishRecord: {
            /** @description The payload in base64 (standard alphabet, with padding). */
            base64?: string | null;
            /** @description The media type of the payload. Default: JSON for `value`, UTF-8 text for `text`, octets for `base64`. */
            content_type?: string | null;
            /** @description At most 64 headers and 16 KiB in all. */
            headers?: {
                [key: string]: components["schemas"]["RecordHeaderValue"];
            };
            /** @description Chooses the partition: records with the same key are in the same one. At most 1 KiB. */
            key?: string | null;
            /** @description The payload as text. */
            text?: string | null;
            /** @description How long the record is delivered, such as `1h`: readers who come later see a gap. 1 s to 10 years. */
            ttl?: string | null;
            /** @description The payload as JSON; stored with the bytes that were sent. */
            value?: unknown;
        };
        /** @description What became of one record of a batch that spans partitions. */
        PublishResult: components["schemas"]["Receipt"] | {
            /** @description Why, and what is known. */
            problem: components["schemas"]["Problem"];
        };
        /** @enum {string} */
        PublishType: "publish";
        /** @description The answer to a publish whose records are in one partition. */
        Receipt: {
            /**
             * Format: int32
             * @description How many records have consecutive offsets from `offset`.
             */
            count: number;
            /** @description The position after the last of them. */
            cursor: string;
            /** @description True when the records were already stored by an earlier request. */
            duplicate: boolean;
            /** @description The durability class that was reached: the one that was asked for, or a stronger one. */
            durability: components["schemas"]["Durability"];
            /**
             * Format: int64
             * @description The offset of the first record.
             */
            offset: number;
            /**
             * Format: int32
             * @description The partition.
             */
            partition: number;
            /**
             * Format: int64
             * @description The server's time of the batch, ms since the Unix epoch.
             */
            timestamp: number;
            /** @description The topic. */
            topic: string;
        };
        /** @description A record as it is read: `value` where the payload is JSON, `text` where it is textual UTF-8, else `base64`. */
        Record: {
            /** @description The payload in base64, when it is neither. */
            base64?: string | null;
            /** @description The media type of the payload. */
            content_type?: string | null;
            /** @description The headers, if there are any. */
            headers?: {
                [key: string]: string;
            };
            /** @description The key, if it has one. Bytes that are not UTF-8 are shown with U+FFFD. */
            key?: string | null;
            /**
             * Format: int64
             * @description The place in the partition.
             */
            offset: number;
            /**
             * Format: int32
             * @description The partition.
             */
            partition: number;
            /** @description The payload, when it is textual. */
            text?: string | null;
            /**
             * Format: int64
             * @description The server's time of the record, ms since the Unix epoch.
             */
            timestamp: number;
            /** @description The topic. */
            topic: string;
            /** @description The payload, when it is JSON; the bytes are those that were published. */
            value?: unknown;
        };
        /** @description The value of a record's header: no control character but a tab. */
        RecordHeaderValue: string;
        /**
         * @description A newer credential of the same holder, before the one of the connection ends: same tenant, same subject of the same
         *     issuer (or same API key), and no fewer rights. When it is refused, the connection goes on with the one that it has.
         */
        RefreshFrame: {
            /** @description Repeated in the answer. */
            id?: string | null;
            /** @description A token (JWT) or an API key. */
            token: string;
            /** @description `refresh` */
            type: components["schemas"]["RefreshType"];
        };
        /** @enum {string} */
        RefreshType: "refresh";
        /** @description A frame from the server. */
        ServerFrame: {
            /** @description The limits that hold on it. */
            limits: components["schemas"]["ConnectionLimits"];
            /** @description Names this connection. */
            session: string;
            /** @enum {string} */
            type: "welcome";
        } | {
            /** @description Where it begins. */
            cursor: string;
            /** @description Of the request. */
            id: string;
            /** @description The subscription; equal to `id`. */
            sub: string;
            /** @enum {string} */
            type: "subscribed";
        } | {
            /** @description The position after everything that was sent. */
            cursor: string;
            /** @description The subscription. */
            sub: string;
            /** @enum {string} */
            type: "unsubscribed";
        } | {
            /** @description The position after them. */
            cursor: string;
            /** @description In order within each partition. */
            records: components["schemas"]["Record"][];
            /** @description The subscription. */
            sub: string;
            /** @enum {string} */
            type: "records";
        } | {
            /** @description Of the request. */
            id: string;
            /** @description One receipt when all records went to one partition; else one result per record, in the order of the frame. */
            receipts: components["schemas"]["PublishResult"][];
            /** @enum {string} */
            type: "published";
        } | {
            /** @description The position. */
            cursor: string;
            /** @description The subscription. */
            sub: string;
            /** @enum {string} */
            type: "caught_up";
        } | (components["schemas"]["Gap"] & {
            /** @description The position at which it goes on. */
            cursor: string;
            /** @description The subscription. */
            sub: string;
        } & {
            /** @enum {string} */
            type: "gap";
        }) | {
            /** @description The subscription. */
            sub: string;
            /** @description The topic. */
            topic: string;
            /** @enum {string} */
            type: "closed";
        } | {
            /** @description The subscription. */
            sub: string;
            /** @description The topic. */
            topic: string;
            /** @enum {string} */
            type: "end";
        } | {
            /** @description Of the request, if it was one. */
            id?: string | null;
            /** @description Why. */
            problem: components["schemas"]["Problem"];
            /** @enum {string} */
            type: "error";
        } | {
            /**
             * Format: int64
             * @description When the credential of the connection ends now, ms since the Unix epoch.
             */
            expires_at?: number | null;
            /** @description Of the request. */
            id?: string | null;
            /** @enum {string} */
            type: "refreshed";
        } | {
            /**
             * Format: int64
             * @description When.
             */
            in_ms: number;
            /** @enum {string} */
            type: "token_expiring";
        } | {
            /** @description The position of each subscription. */
            cursors: {
                [key: string]: string;
            };
            /** @description Why. */
            reason: string;
            /**
             * Format: int64
             * @description How long to wait.
             */
            reconnect_in_ms: number;
            /** @enum {string} */
            type: "goaway";
        } | {
            /** @description Of the request. */
            id?: string | null;
            /** @enum {string} */
            type: "pong";
        };
        /**
         * @description What a subscription wants when it reads slower than records arrive.
         * @enum {string}
         */
        SlowPolicy: "catch_up" | "latest" | "disconnect";
        /** @description Follow topics. */
        SubscribeFrame: {
            /**
             * Format: int64
             * @description How many records may come before more credit is given. Without it there is no such bound.
             */
            credit?: number | null;
            /** @description Where to begin, as in the query parameter of the same name. Default `latest`. */
            from?: string | null;
            /** @description Repeated in the answer; names the subscription on this connection. At most 255 bytes. */
            id: string;
            /** @description What to do when the client is slow. */
            policy?: components["schemas"]["SlowPolicy"];
            /** @description Names or patterns, at most 100. */
            topics: string[];
            /** @description `subscribe` */
            type: components["schemas"]["SubscribeType"];
        };
        /** @enum {string} */
        SubscribeType: "subscribe";
        /**
         * @description Why a request about a subscription failed, in the words of the protocol of streams.
         * @enum {string}
         */
        SubscriptionErrorCode: "INVALID_REQUEST" | "SUBSCRIPTION_NOT_FOUND" | "SUBSCRIPTION_ALREADY_EXISTS" | "LIMIT_EXCEEDED" | "WEBHOOK_URL_REJECTED" | "TOKEN_INVALID" | "TOKEN_EXPIRED" | "FENCED" | "ALREADY_CLAIMED" | "NO_PENDING_WORK" | "INVALID_OFFSET";
        /** @description The same with what belongs to it. */
        SubscriptionFailure: {
            /** @description The code, stable. */
            code: components["schemas"]["SubscriptionErrorCode"];
            /** @description For `ALREADY_CLAIMED`: the worker. */
            current_holder?: string | null;
            /**
             * Format: int64
             * @description For `ALREADY_CLAIMED`: the number of the wake.
             */
            generation?: number | null;
            /** @description What happened this time. */
            message: string;
        };
        /** @description Stop following. */
        UnsubscribeFrame: {
            /** @description The subscription. */
            sub: string;
            /** @description `unsubscribe` */
            type: components["schemas"]["UnsubscribeType"];
        };
        /** @enum {string} */
        UnsubscribeType: "unsubscribe";
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
