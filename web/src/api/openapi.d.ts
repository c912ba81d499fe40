// Written by `npm run types` from openapi/openapi.json; do not edit.

export type paths = Record<string, never>;
export type webhooks = Record<string, never>;
export interface components {
    schemas: {
        /** @description The answer to `POST …/callback` and `POST …/ack`. */
        Acknowledged: {
            /** @description Whether the next wake has begun. */
            next_wake: boolean;
            /** @description True. */
            ok: boolean;
        };
        /** @description What `POST …/callback` and `POST …/ack` ask for. */
        AckRequest: {
            /** @description What is done with; all of it is taken over, or nothing. */
            acks?: components["schemas"]["StreamAck"][];
            /** @description Whether the wake ends. Without it, its lease begins anew. */
            done?: boolean;
            /**
             * Format: int64
             * @description Its number.
             */
            generation: number;
            /** @description The id of the wake. */
            wake_id: string;
        };
        /**
         * @description An origin as browsers send it, `https://app.example.com`, with the port where it is not the scheme's own; or `*` for every
         *     page.
         */
        AllowedOrigin: string;
        /** @description A record of `_audit`. */
        Audit: {
            /** @description The address that the connection came from. */
            address?: string | null;
            /**
             * Format: int64
             * @description When, ms since the Unix epoch.
             */
            at: number;
            code?: components["schemas"]["ErrorCode"] | null;
            /**
             * Format: int64
             * @description How many records are missing.
             */
            count?: number | null;
            /** @description Which credential: `root`, `key:<id>`, or how else it is named. */
            credential?: string | null;
            /** @description The operation, by its id in the OpenAPI document. */
            operation?: string | null;
            /** @description The id of the request, which both records of a call have. */
            request_id?: string | null;
            /**
             * Format: int32
             * @description The status of the answer.
             */
            status?: number | null;
            /** @description For whom the credential was made, where it says so. */
            subject?: string | null;
            /** @description What it was about: the name of a topic or tenant, the id of a key. */
            target?: string | null;
            /** @description The tenant that an operator's call was about. */
            tenant?: string | null;
            /** @description What it is about. */
            type: components["schemas"]["AuditKind"];
        };
        /**
         * @description What a record of `_audit` is about.
         * @enum {string}
         */
        AuditKind: "begun" | "answered" | "unauthenticated" | "dropped";
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
        /** @description A number of bytes, 1 to 2^53-1, or a size with a unit such as `"10GiB"`. Answers have the number. */
        ByteCount: components["schemas"]["ByteNumber"] | components["schemas"]["ByteText"];
        /**
         * Format: int64
         * @description A number of bytes.
         */
        ByteNumber: number;
        /** @description A size with a unit. */
        ByteText: string;
        /** @description A wake that a worker has claimed. */
        Claimed: {
            /**
             * Format: int64
             * @description Its number.
             */
            generation: number;
            /**
             * Format: int64
             * @description How long it is the worker's, unless `ack` is called before, in milliseconds.
             */
            lease_ttl_ms: number;
            /** @description All streams of the subscription. */
            streams: components["schemas"]["WakeStream"][];
            /** @description The credential for `ack` and `release`. */
            token: string;
            /** @description The id of the wake. */
            wake_id: string;
        };
        /** @description What `POST …/claim` asks for. */
        ClaimRequest: {
            /** @description A name of the worker, for others that ask. */
            worker: string;
        };
        /**
         * @description What happens to the records of a topic besides retention.
         * @enum {string}
         */
        Cleanup: "delete" | "compact";
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
        /** @description A control line of an NDJSON stream; the data of an SSE event of the same name. */
        Control: {
            /** @enum {string} */
            control: "caught_up";
            /** @description The position. */
            cursor: string;
        } | (components["schemas"]["Gap"] & {
            /** @enum {string} */
            control: "gap";
        }) | {
            /** @enum {string} */
            control: "goaway";
            /** @description The position to go on from. */
            cursor: string;
            /** @description Why. */
            reason: string;
            /**
             * Format: int64
             * @description How long to wait.
             */
            reconnect_in_ms: number;
        } | {
            /** @enum {string} */
            control: "closed";
            /** @description The topic. */
            topic: string;
        } | {
            /** @enum {string} */
            control: "end";
            /** @description The topic. */
            topic: string;
        };
        /**
         * @description What kind of credential it is.
         * @enum {string}
         */
        CredentialKind: "root" | "key" | "token";
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
        /** @description Whether something is allowed. */
        Decision: {
            /** @description What was asked for. */
            action: components["schemas"]["TopicAction"];
            /** @description Whether it is allowed. */
            allowed: boolean;
            /** @description Why, in a sentence. */
            reason: string;
            /** @description The topic or pattern. */
            topic: string;
        };
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
        /**
         * @description How the data of an event is written.
         * @enum {string}
         */
        EventFormat: "value";
        /** @description Who the caller is, and whether something is allowed. */
        Explanation: {
            decision?: components["schemas"]["Decision"] | null;
            /**
             * Format: int64
             * @description When the credential ends, ms since the Unix epoch.
             */
            expires_at?: number | null;
            /**
             * Format: int64
             * @description When the token was issued, ms since the Unix epoch.
             */
            issued_at?: number | null;
            /** @description The name of the trusted issuer. */
            issuer?: string | null;
            /** @description The API key, or the one that minted the token. */
            key_id?: string | null;
            /** @description What kind of credential it is. */
            kind: components["schemas"]["CredentialKind"];
            /** @description What it may do; empty for the root key, which may do everything. */
            scopes: string[];
            /** @description The subject of a token. */
            subject?: string | null;
            /** @description The tenant. */
            tenant: string;
            /** @description The id (`jti`) of a token. */
            token_id?: string | null;
        };
        /** @description Where reading begins: `earliest`, `latest`, `offset:N`, `-N` for the last N, `time:<RFC 3339>` or `cursor:<token>`. */
        From: string;
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
        /**
         * @description How finely use is told.
         * @enum {string}
         */
        Granularity: "minute" | "hour";
        /** @description What happened to a tenant. */
        Happening: {
            /** @description Its name. */
            topic: string;
            /** @enum {string} */
            type: "topic_made";
        } | {
            /** @description Its name. */
            topic: string;
            /** @enum {string} */
            type: "topic_changed";
        } | {
            /** @description Its name. */
            topic: string;
            /** @enum {string} */
            type: "topic_deleted";
        } | {
            /** @description Its id. */
            key: string;
            /** @enum {string} */
            type: "key_made";
        } | {
            /** @description Its id. */
            key: string;
            /** @enum {string} */
            type: "key_rotated";
        } | {
            /** @description Its id. */
            key: string;
            /** @enum {string} */
            type: "key_revoked";
        } | {
            /** @enum {string} */
            type: "tenant_suspended";
        } | {
            /** @enum {string} */
            type: "tenant_resumed";
        } | {
            /** @description Which one. */
            quota: string;
            /** @enum {string} */
            type: "quota_reached";
        } | {
            /**
             * Format: int64
             * @description How many records are missing.
             */
            count: number;
            /** @enum {string} */
            type: "dropped";
        };
        /** @description A trusted issuer. */
        Issuer: {
            /** @description The algorithms that its tokens may have. */
            algorithms: string[];
            /** @description The audiences of which a token must have one. */
            audiences: string[];
            /**
             * Format: int64
             * @description When it was first trusted, ms since the Unix epoch.
             */
            created_at: number;
            /** @description The scopes of a token without that claim. */
            default_scopes: string[];
            /** @description Whether it has a secret, which is not shown. */
            has_secret: boolean;
            /** @description The `iss` of its tokens. */
            issuer: string;
            jwks?: components["schemas"]["JsonWebKeySet"] | null;
            /** @description Where it publishes its keys. */
            jwks_url?: string | null;
            /** @description By how much its clock may be wrong. */
            leeway: string;
            /** @description The longest life of its tokens, such as `1day`. */
            max_lifetime: string;
            /** @description Its name in the tenant. */
            name: string;
            /** @description The claim with the scopes. */
            scope_claim: string;
            /** @description The claim with the subject. */
            subject_claim: string;
        };
        /** @description The name of an issuer in its tenant: 1 to 63 of `a-z 0-9 -`, starting and ending with a letter or digit. */
        IssuerName: string;
        /** @description What `PUT /v1/issuers/{name}` asks for. */
        IssuerRequest: {
            /** @description The algorithms that its tokens may have. */
            algorithms: components["schemas"]["TokenAlgorithm"][];
            /**
             * @description The audiences of which a token must have one; default `["plinth:<tenant>"]`. Others than that and those that begin
             *     with `plinth:<tenant>/` need the root key. A pair of issuer and audience belongs to one tenant.
             */
            audiences?: string[];
            /** @description The scopes of a token without that claim. `{name}` stands for a claim: `subscribe:users/{sub}/**`. */
            default_scopes?: string[];
            /** @description The `iss` of its tokens, 1 to 1,024 bytes. */
            issuer: string;
            jwks?: components["schemas"]["JsonWebKeySet"] | null;
            /**
             * @description Where it publishes its keys, a URL with `https://` of a public host. They are fetched when they are needed, at most every
             *     30 s, and count for 10 minutes; for an hour while newer ones cannot be fetched.
             */
            jwks_url?: string | null;
            /** @description By how much its clock may be wrong, at most `30s`, which is the default. */
            leeway?: string | null;
            /** @description The longest life of its tokens, from `iat` to `exp`: `1m` to `7d`; default `1d`. */
            max_lifetime?: string | null;
            /** @description The claim with the scopes, a text with spaces or a list; default `scope`. */
            scope_claim?: string | null;
            /** @description Its secret, for HS256 (at least 32 bytes), HS384 (48) and HS512 (64). Kept sealed and never shown. */
            secret?: string | null;
            /** @description The claim with the subject; default `sub`. */
            subject_claim?: string | null;
        };
        /** @description A public key: RSA of 2,048 to 8,192 bits, EC on P-256 or P-384, or Ed25519. */
        JsonWebKey: {
            alg?: components["schemas"]["TokenAlgorithm"] | null;
            /** @description The curve. */
            crv?: string | null;
            /** @description The exponent of an RSA key. */
            e?: string | null;
            /** @description Its id, at most 128 bytes. */
            kid?: string | null;
            /** @description `RSA`, `EC` or `OKP`. */
            kty: string;
            /** @description The modulus of an RSA key. */
            n?: string | null;
            /** @description What it is for: `sig`. */
            use?: string | null;
            /** @description A coordinate of an EC key, or an Ed25519 key. */
            x?: string | null;
            /** @description The other coordinate of an EC key. */
            y?: string | null;
        };
        /** @description A JSON Web Key Set (RFC 7517). Further members of keys are allowed and not kept; those of private keys are refused. */
        JsonWebKeySet: {
            /** @description At most 100 keys; each of several needs its `kid`. */
            keys: components["schemas"]["JsonWebKey"][];
        };
        /** @description An API key, without its secret. */
        Key: {
            /**
             * Format: int64
             * @description When it was made, ms since the Unix epoch.
             */
            created_at: number;
            /**
             * Format: int64
             * @description When it ends, ms since the Unix epoch.
             */
            expires_at?: number | null;
            /** @description The id, also the part of the key after `plk_`. */
            id: string;
            /** @description The last four characters of the key. */
            last_four: string;
            /**
             * Format: int64
             * @description When it was last used, to the minute, ms since the Unix epoch. An open connection is a use. After a crash of the node
             *     the last minute is missing.
             */
            last_used_at?: number | null;
            /** @description The name for people. */
            name: string;
            /**
             * Format: int64
             * @description Until when secrets before that one are accepted, too, if they are, ms since the Unix epoch.
             */
            previous_until?: number | null;
            /** @description What it may use at most, within what its tenant may. */
            quotas?: components["schemas"]["Quotas"];
            /**
             * Format: int64
             * @description When it got the secret that it has, if that is not its first, ms since the Unix epoch.
             */
            rotated_at?: number | null;
            /** @description What it may do. */
            scopes: string[];
        };
        /** @description What `PATCH /v1/keys/{id}` changes; what is left out stays. Scopes and the end of a key do not change: make another one. */
        KeyPatch: {
            /** @description A name for people, at most 255 bytes. */
            name?: string | null;
            quotas?: components["schemas"]["Quotas"] | null;
        };
        /** @description What `POST /v1/keys` asks for. */
        KeyRequest: {
            /** @description How long it lives, such as `"30d"`; without it the key has no end. */
            expires_in?: string | null;
            /** @description A name for people, at most 255 bytes. */
            name?: string;
            quotas?: components["schemas"]["Quotas"] | null;
            /** @description What the key may do: `publish:<pattern>`, `subscribe:<pattern>`, `manage:<pattern>`, `admin`. */
            scopes: components["schemas"]["Scope"][];
        };
        /** @description What `POST /v1/keys/{id}/rotate` asks for. */
        KeyRotation: {
            /** @description How long the secret before is accepted, too, such as `"1h"`, at most 30 days. Without it all secrets before end at once. */
            overlap?: string | null;
        };
        /** @description One limit as the API shows it. */
        LimitInfo: {
            /** @description What it bounds. */
            description: string;
            error?: components["schemas"]["ErrorCode"] | null;
            /** @description Its name, stable. */
            name: string;
            /** @description What `value` counts. */
            unit: components["schemas"]["Unit"];
            /**
             * Format: int64
             * @description How much it is on this node.
             */
            value: number;
        };
        /**
         * @description How a stream came to be linked.
         * @enum {string}
         */
        LinkType: "glob" | "explicit";
        /** @description One page of a list. */
        ListPage_Issuer: {
            /** @description The items, in the list's own order. */
            data: {
                /** @description The algorithms that its tokens may have. */
                algorithms: string[];
                /** @description The audiences of which a token must have one. */
                audiences: string[];
                /**
                 * Format: int64
                 * @description When it was first trusted, ms since the Unix epoch.
                 */
                created_at: number;
                /** @description The scopes of a token without that claim. */
                default_scopes: string[];
                /** @description Whether it has a secret, which is not shown. */
                has_secret: boolean;
                /** @description The `iss` of its tokens. */
                issuer: string;
                jwks?: components["schemas"]["JsonWebKeySet"] | null;
                /** @description Where it publishes its keys. */
                jwks_url?: string | null;
                /** @description By how much its clock may be wrong. */
                leeway: string;
                /** @description The longest life of its tokens, such as `1day`. */
                max_lifetime: string;
                /** @description Its name in the tenant. */
                name: string;
                /** @description The claim with the scopes. */
                scope_claim: string;
                /** @description The claim with the subject. */
                subject_claim: string;
            }[];
            /** @description Pass as `cursor` to get the next page; `null` on the last one. */
            next_cursor?: string | null;
        };
        /** @description One page of a list. */
        ListPage_Key: {
            /** @description The items, in the list's own order. */
            data: {
                /**
                 * Format: int64
                 * @description When it was made, ms since the Unix epoch.
                 */
                created_at: number;
                /**
                 * Format: int64
                 * @description When it ends, ms since the Unix epoch.
                 */
                expires_at?: number | null;
                /** @description The id, also the part of the key after `plk_`. */
                id: string;
                /** @description The last four characters of the key. */
                last_four: string;
                /**
                 * Format: int64
                 * @description When it was last used, to the minute, ms since the Unix epoch. An open connection is a use. After a crash of the node
                 *     the last minute is missing.
                 */
                last_used_at?: number | null;
                /** @description The name for people. */
                name: string;
                /**
                 * Format: int64
                 * @description Until when secrets before that one are accepted, too, if they are, ms since the Unix epoch.
                 */
                previous_until?: number | null;
                /** @description What it may use at most, within what its tenant may. */
                quotas?: components["schemas"]["Quotas"];
                /**
                 * Format: int64
                 * @description When it got the secret that it has, if that is not its first, ms since the Unix epoch.
                 */
                rotated_at?: number | null;
                /** @description What it may do. */
                scopes: string[];
            }[];
            /** @description Pass as `cursor` to get the next page; `null` on the last one. */
            next_cursor?: string | null;
        };
        /** @description One page of a list. */
        ListPage_Revocation: {
            /** @description The items, in the list's own order. */
            data: {
                /**
                 * Format: int64
                 * @description When it was made, ms since the Unix epoch.
                 */
                created_at: number;
                /**
                 * Format: int64
                 * @description When it is forgotten, because no such token can be good any more, ms since the Unix epoch.
                 */
                expires_at: number;
                /** @description Its id, the same for the same thing. */
                id: string;
                /**
                 * Format: int64
                 * @description Of a subject: its tokens that were issued before this time, ms since the Unix epoch.
                 */
                issued_before?: number | null;
                /** @description The API key. */
                key_id?: string | null;
                /** @description The subject. */
                subject?: string | null;
                /** @description The token. */
                token_id?: string | null;
            }[];
            /** @description Pass as `cursor` to get the next page; `null` on the last one. */
            next_cursor?: string | null;
        };
        /** @description One page of a list. */
        ListPage_Stream: {
            /** @description The items, in the list's own order. */
            data: {
                /** @description Whether nothing is appended to it any more. */
                closed: boolean;
                /** @description The media type of all that is in it. */
                content_type: string;
                /**
                 * Format: int64
                 * @description When it was made, ms since the Unix epoch.
                 */
                created_at: number;
                /**
                 * Format: int64
                 * @description When it ends by itself, ms since the Unix epoch.
                 */
                expires_at?: number | null;
                /** @description The name, which is its path. */
                name: string;
                /** @description The offset behind its last record: `Stream-Next-Offset`. */
                next_offset: string;
                /** @description How long after its last use it ends by itself: a time in its largest unit that fits. */
                ttl?: string | null;
            }[];
            /** @description Pass as `cursor` to get the next page; `null` on the last one. */
            next_cursor?: string | null;
        };
        /** @description One page of a list. */
        ListPage_Tenant: {
            /** @description The items, in the list's own order. */
            data: {
                /** @description The pages whose scripts may use the API with a credential of the tenant. */
                allowed_origins?: string[];
                /**
                 * Format: int64
                 * @description When it was made, ms since the Unix epoch.
                 */
                created_at: number;
                /** @description The name. */
                name: string;
                /** @description What it may use at most. */
                quotas?: components["schemas"]["Quotas"];
                /**
                 * Format: int64
                 * @description When it was suspended, ms since the Unix epoch; its credentials are refused.
                 */
                suspended_at?: number | null;
            }[];
            /** @description Pass as `cursor` to get the next page; `null` on the last one. */
            next_cursor?: string | null;
        };
        /** @description One page of a list. */
        ListPage_Topic: {
            /** @description The items, in the list's own order. */
            data: {
                /**
                 * Format: int64
                 * @description Stored bytes of all partitions.
                 */
                bytes: number;
                /** @description What happens to records besides retention. */
                cleanup?: components["schemas"]["Cleanup"];
                /**
                 * Format: int64
                 * @description When it was made, ms since the Unix epoch.
                 */
                created_at: number;
                /** @description The durability class. */
                durability: components["schemas"]["Durability"];
                /**
                 * Format: int32
                 * @description Streams that were forked from it and share its records: while there are any, none of these is deleted, whatever its retention.
                 */
                forks?: number;
                /**
                 * Format: int32
                 * @description The largest payload of a record, in bytes.
                 */
                max_record_bytes: number;
                /** @description The name. */
                name: string;
                /** @description Per partition; only in the view of one topic. */
                partition_bounds?: components["schemas"]["PartitionBounds"][];
                /**
                 * Format: int32
                 * @description How many partitions it has.
                 */
                partitions: number;
                /**
                 * Format: int64
                 * @description Records of all partitions. Of a topic that was compacted and trimmed it may be a few less than there are.
                 */
                records: number;
                retention?: components["schemas"]["RetentionShown"] | null;
                stream?: components["schemas"]["TopicStream"] | null;
            }[];
            /** @description Pass as `cursor` to get the next page; `null` on the last one. */
            next_cursor?: string | null;
        };
        /** @description A key that was just made, or has a new secret; `key` is shown this once. */
        NewKey: components["schemas"]["Key"] & {
            /** @description The key as it goes into `Authorization: Bearer`. */
            key: string;
        };
        /** @description The bounds of one partition. */
        PartitionBounds: {
            /**
             * Format: int64
             * @description Stored bytes that are kept.
             */
            bytes: number;
            /** @description Whether nothing is appended to it any more: the topic is a closed stream. */
            closed?: boolean;
            /**
             * Format: int32
             * @description The partition.
             */
            partition: number;
            /**
             * Format: int64
             * @description The first offset that is kept.
             */
            start: number;
            /**
             * Format: int64
             * @description The next offset to be given.
             */
            tail: number;
        };
        /**
         * Format: binary
         * @description A payload of any type: its bytes, as they are.
         */
        Payload: string;
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
        /** @description A batch to publish: `application/vnd.plinth.batch+json`. */
        PublishBatch: {
            /** @description At least one record and at most 1,000. */
            records: components["schemas"]["PublishRecord"][];
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
        /** @description The answer (207) to a batch that spans partitions. */
        PublishResults: {
            /** @description One result per record, in the order of the request; `count` is 1 in each. */
            results: components["schemas"]["PublishResult"][];
        };
        /** @enum {string} */
        PublishType: "publish";
        /**
         * @description Each quota, by its name on the wire.
         * @enum {string}
         */
        Quota: "requests_per_second" | "publish_bytes_per_second" | "publish_records_per_second" | "delivered_bytes_per_second" | "delivered_records_per_second" | "connections" | "followers" | "topics" | "storage_bytes";
        /**
         * Format: int64
         * @description The number of a quota: 1 to 2^53 - 1.
         */
        QuotaNumber: number;
        /** @description What `GET /v1/quotas` shows. */
        QuotaReport: {
            /** @description Every quota of the key that asks, if it has some of its own. */
            key_quotas?: components["schemas"]["QuotaUse"][] | null;
            /** @description What is limited for everyone. */
            limits: components["schemas"]["LimitInfo"][];
            /** @description Every quota of the tenant, in use by all its credentials. */
            quotas: components["schemas"]["QuotaUse"][];
            /** @description The tenant. */
            tenant: components["schemas"]["TenantName"];
        };
        /** @description What may be used at most. What is left out is not limited. */
        Quotas: {
            connections?: components["schemas"]["QuotaNumber"] | null;
            delivered_bytes_per_second?: components["schemas"]["QuotaNumber"] | null;
            delivered_records_per_second?: components["schemas"]["QuotaNumber"] | null;
            followers?: components["schemas"]["QuotaNumber"] | null;
            publish_bytes_per_second?: components["schemas"]["QuotaNumber"] | null;
            publish_records_per_second?: components["schemas"]["QuotaNumber"] | null;
            requests_per_second?: components["schemas"]["QuotaNumber"] | null;
            storage_bytes?: components["schemas"]["QuotaNumber"] | null;
            topics?: components["schemas"]["QuotaNumber"] | null;
        };
        /** @description One quota with its limit and its use. */
        QuotaUse: {
            /**
             * Format: int64
             * @description How much it is; absent where nothing is limited.
             */
            limit?: number | null;
            /** @description Which one. */
            quota: components["schemas"]["Quota"];
            /**
             * Format: int64
             * @description Of a quota per second: all that was used since the node started.
             */
            total?: number | null;
            /**
             * Format: int64
             * @description Of a quota per second: what is used of it at this moment, and not yet back, which may be more than the limit after
             *     a large batch; absent where nothing is limited. Of the others: what is held.
             */
            used?: number | null;
        };
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
        /** @description A page of records. */
        RecordPage: {
            /** @description True when the page reached the tail of every partition. */
            caught_up: boolean;
            /** @description Places where records are missing, and where the page went on; left out when there are none. */
            gaps?: components["schemas"]["Gap"][];
            /** @description The position after them, valid on every transport. */
            next: string;
            /** @description The records, in order within each partition. */
            records: components["schemas"]["Record"][];
        };
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
        /** @description What `POST …/release` asks for. */
        ReleaseRequest: {
            /**
             * Format: int64
             * @description Its number.
             */
            generation: number;
            /** @description The id of the wake. */
            wake_id: string;
        };
        /**
         * @description How much of a topic is kept; what is left out is not limited. Records that are no longer kept go within seconds to
         *     minutes.
         */
        Retention: {
            /** @description Records that are older go: a time such as `"7d"`, 1 second to 36,500 days. */
            age?: string | null;
            bytes?: components["schemas"]["ByteCount"] | null;
        };
        /** @description How `PATCH` changes a retention: what is left out stays, `null` takes the limit away. */
        RetentionPatch: {
            /** @description Records that are older go: a time such as `"7d"`, 1 second to 36,500 days. */
            age?: string | null;
            bytes?: components["schemas"]["ByteCount"] | null;
        };
        /** @description How much of a topic is kept, as it is shown. */
        RetentionShown: {
            /** @description Records that are older go: a time in its largest unit that fits. */
            age?: string | null;
            bytes?: components["schemas"]["ByteNumber"] | null;
        };
        /** @description A revocation. */
        Revocation: {
            /**
             * Format: int64
             * @description When it was made, ms since the Unix epoch.
             */
            created_at: number;
            /**
             * Format: int64
             * @description When it is forgotten, because no such token can be good any more, ms since the Unix epoch.
             */
            expires_at: number;
            /** @description Its id, the same for the same thing. */
            id: string;
            /**
             * Format: int64
             * @description Of a subject: its tokens that were issued before this time, ms since the Unix epoch.
             */
            issued_before?: number | null;
            /** @description The API key. */
            key_id?: string | null;
            /** @description The subject. */
            subject?: string | null;
            /** @description The token. */
            token_id?: string | null;
        };
        /** @description What `POST /v1/revocations` asks for: one of `key_id`, `token_id` and `subject`. */
        RevocationRequest: {
            /**
             * Format: date-time
             * @description With `subject`: those that were issued before this time (RFC 3339), not after now; default now.
             */
            issued_before?: string | null;
            /** @description An API key: it is deleted, and the tokens that it minted end. */
            key_id?: string | null;
            /** @description The tokens of a subject. */
            subject?: string | null;
            /** @description A token, by its `jti`. */
            token_id?: string | null;
        };
        /** @description What a key may do: `admin`, or an action on the topics whose names fit a pattern. */
        Scope: string;
        /** @description A scope in which `{claim}` stands for the value of a claim: `subscribe:users/{sub}/**`. */
        ScopeTemplate: string;
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
        /**
         * Format: binary
         * @description Batches in the form in which they are stored, one behind the other: `application/vnd.plinth.batch`, docs/format.md,
         *     section 8. A publish is one of them.
         */
        StoredBatches: string;
        /** @description A stream: a topic of one partition, as the protocol of Durable Streams sees it. */
        Stream: {
            /** @description Whether nothing is appended to it any more. */
            closed: boolean;
            /** @description The media type of all that is in it. */
            content_type: string;
            /**
             * Format: int64
             * @description When it was made, ms since the Unix epoch.
             */
            created_at: number;
            /**
             * Format: int64
             * @description When it ends by itself, ms since the Unix epoch.
             */
            expires_at?: number | null;
            /** @description The name, which is its path. */
            name: string;
            /** @description The offset behind its last record: `Stream-Next-Offset`. */
            next_offset: string;
            /** @description How long after its last use it ends by itself: a time in its largest unit that fits. */
            ttl?: string | null;
        };
        /** @description What is done with in one stream. */
        StreamAck: {
            /** @description The last offset that is done with. */
            offset: string;
            /** @description The path of the stream. */
            stream: components["schemas"]["TopicName"];
        };
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
        /** @description A subscription. */
        Subscription: {
            /** @description When it was made, RFC 3339. */
            created_at: string;
            /** @description For people. */
            description?: string | null;
            /** @description The id. */
            id: string;
            /**
             * Format: int64
             * @description How long a wake may take without a sign of life, in milliseconds.
             */
            lease_ttl_ms: number;
            /** @description The streams that it is about, those that come later among them. */
            pattern?: string | null;
            /** @description Whether wakes are delivered. */
            status: components["schemas"]["SubscriptionStatus"];
            /** @description The streams that it is linked with. */
            streams: components["schemas"]["SubscriptionStream"][];
            /** @description The same. */
            subscription_id: string;
            /** @description How it wakes. */
            type: components["schemas"]["SubscriptionType"];
            /** @description For `pull-wake`. */
            wake_stream?: string | null;
            webhook?: components["schemas"]["Webhook"] | null;
        };
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
        /** @description What `PUT …/__ds/subscriptions/{id}` asks for. */
        SubscriptionRequest: {
            /** @description For people. */
            description?: string | null;
            /**
             * Format: int64
             * @description How long a wake may take without a sign of life, in milliseconds; default 30,000.
             */
            lease_ttl_ms?: number | null;
            /** @description The streams that it is about, those that come later among them: `*` is one level of a path, `**` any number. */
            pattern?: string | null;
            /** @description Further streams, which need not be there yet. */
            streams?: components["schemas"]["TopicName"][];
            /** @description How it wakes. */
            type: components["schemas"]["SubscriptionType"];
            wake_stream?: components["schemas"]["TopicName"] | null;
            webhook?: components["schemas"]["WebhookRequest"] | null;
        };
        /**
         * @description Whether wakes are delivered.
         * @enum {string}
         */
        SubscriptionStatus: "active" | "failed";
        /** @description A stream of a subscription. */
        SubscriptionStream: {
            /** @description The last offset that is done with; `-1` when nothing is. */
            acked_offset: string;
            /** @description How it came to be linked; `explicit` if it was named, though the pattern matches it, too. */
            link_type: components["schemas"]["LinkType"];
            /** @description Its path. */
            path: string;
        };
        /** @description What `POST …/streams` asks for. */
        SubscriptionStreams: {
            /** @description The streams to be linked, from their ends on. */
            streams: components["schemas"]["TopicName"][];
        };
        /**
         * @description How a subscription wakes.
         * @enum {string}
         */
        SubscriptionType: "webhook" | "pull-wake";
        /** @description A tenant. */
        Tenant: {
            /** @description The pages whose scripts may use the API with a credential of the tenant. */
            allowed_origins?: string[];
            /**
             * Format: int64
             * @description When it was made, ms since the Unix epoch.
             */
            created_at: number;
            /** @description The name. */
            name: string;
            /** @description What it may use at most. */
            quotas?: components["schemas"]["Quotas"];
            /**
             * Format: int64
             * @description When it was suspended, ms since the Unix epoch; its credentials are refused.
             */
            suspended_at?: number | null;
        };
        /** @description A record of `_events`. */
        TenantEvent: components["schemas"]["Happening"] & {
            /**
             * Format: int64
             * @description When, ms since the Unix epoch.
             */
            at: number;
        };
        /** @description The name of a tenant: 1 to 63 of `a-z 0-9 -`, starting and ending with a letter or digit. */
        TenantName: string;
        /** @description What `PATCH /v1/tenants/{tenant}` changes; what is left out stays. */
        TenantPatch: {
            /** @description Takes the place of all origins before. */
            allowed_origins?: components["schemas"]["AllowedOrigin"][] | null;
            quotas?: components["schemas"]["Quotas"] | null;
            /** @description Whether its credentials are refused. */
            suspended?: boolean | null;
        };
        /** @description What `POST /v1/tenants` asks for. */
        TenantRequest: {
            /** @description The pages whose scripts may use the API with a credential of the tenant. Default none but the server's own. */
            allowed_origins?: components["schemas"]["AllowedOrigin"][] | null;
            /** @description 1 to 63 of `a-z 0-9 -`, starting and ending with a letter or digit. */
            name: components["schemas"]["TenantName"];
            quotas?: components["schemas"]["Quotas"] | null;
        };
        /** @description A payload that is text. */
        TextPayload: string;
        /** @description A one-time ticket for `?ticket=`. */
        Ticket: {
            /**
             * Format: int64
             * @description When it ends, ms since the Unix epoch.
             */
            expires_at: number;
            /** @description Good for one connection, and for the browser that opened it to come back. */
            ticket: string;
        };
        /** @description What `POST /v1/tickets` asks for: there is nothing to choose. */
        TicketRequest: Record<string, never>;
        /** @description A token that was just minted. */
        Token: {
            /**
             * Format: int64
             * @description When it ends, ms since the Unix epoch.
             */
            expires_at: number;
            /** @description A JWT for `Authorization: Bearer`. */
            token: string;
        };
        /**
         * @description The algorithms of signatures that are offered. Those with a secret (HS) and those with a public key are not of one
         *     issuer.
         * @enum {string}
         */
        TokenAlgorithm: "HS256" | "HS384" | "HS512" | "RS256" | "RS384" | "RS512" | "PS256" | "PS384" | "PS512" | "ES256" | "ES384" | "EdDSA";
        /** @description What `POST /v1/tokens` asks for. */
        TokenRequest: {
            /** @description What the token may do: each within one scope of the caller, and not `admin`. `{sub}` stands for the subject. */
            scopes: components["schemas"]["ScopeTemplate"][];
            /** @description Who is to hold it, 1 to 255 bytes; default the caller. */
            subject?: string | null;
            /** @description How long it lives, `1s` to `1d`; default `1h`. It does not outlive the caller's credential. */
            ttl?: string | null;
        };
        /** @description A topic. */
        Topic: {
            /**
             * Format: int64
             * @description Stored bytes of all partitions.
             */
            bytes: number;
            /** @description What happens to records besides retention. */
            cleanup?: components["schemas"]["Cleanup"];
            /**
             * Format: int64
             * @description When it was made, ms since the Unix epoch.
             */
            created_at: number;
            /** @description The durability class. */
            durability: components["schemas"]["Durability"];
            /**
             * Format: int32
             * @description Streams that were forked from it and share its records: while there are any, none of these is deleted, whatever its retention.
             */
            forks?: number;
            /**
             * Format: int32
             * @description The largest payload of a record, in bytes.
             */
            max_record_bytes: number;
            /** @description The name. */
            name: string;
            /** @description Per partition; only in the view of one topic. */
            partition_bounds?: components["schemas"]["PartitionBounds"][];
            /**
             * Format: int32
             * @description How many partitions it has.
             */
            partitions: number;
            /**
             * Format: int64
             * @description Records of all partitions. Of a topic that was compacted and trimmed it may be a few less than there are.
             */
            records: number;
            retention?: components["schemas"]["RetentionShown"] | null;
            stream?: components["schemas"]["TopicStream"] | null;
        };
        /**
         * @description What a credential can be asked to do with a topic.
         * @enum {string}
         */
        TopicAction: "publish" | "subscribe" | "manage" | "view";
        /**
         * @description The name of a topic: 1 to 255 bytes of `A-Z a-z 0-9 . _ ~ - /`, not starting with `_` or `.`, with no empty level and
         *     no `..`. A `/` in it is written `%2F` in a path. `_usage`, `_audit` and `_events` are written by the server, and read with the
         *     scope `admin`.
         */
        TopicName: string;
        /** @description What `PATCH /v1/topics/{topic}` changes. */
        TopicPatch: {
            cleanup?: components["schemas"]["Cleanup"] | null;
            durability?: components["schemas"]["Durability"] | null;
            /**
             * Format: int32
             * @description The largest payload of a record from now on, 1 byte to 1 MiB.
             */
            max_record_bytes?: number | null;
            retention?: components["schemas"]["RetentionPatch"] | null;
        };
        /** @description A topic's name, or a pattern: `*` is any run without `.` or `/`, `**` anything. None shows a topic that begins with `_`. */
        TopicPattern: string;
        /** @description What `PUT /v1/topics/{topic}` asks for; what is left out gets its default. */
        TopicRequest: {
            cleanup?: components["schemas"]["Cleanup"] | null;
            durability?: components["schemas"]["Durability"] | null;
            /**
             * Format: int32
             * @description The largest payload of a record, 1 byte to 1 MiB. Default 1 MiB.
             */
            max_record_bytes?: number | null;
            /**
             * Format: int32
             * @description How many partitions, 1 to 1,024. Default 1.
             */
            partitions?: number | null;
            retention?: components["schemas"]["Retention"] | null;
        };
        /** @description A topic as the stream that it was made as. */
        TopicStream: {
            /** @description Whether nothing is appended to it any more. */
            closed: boolean;
            /** @description The media type of all that is in it. */
            content_type: string;
            /**
             * Format: int64
             * @description When it ends by itself, ms since the Unix epoch.
             */
            expires_at?: number | null;
            /** @description How long after its last use it ends by itself: a time in its largest unit that fits. */
            ttl?: string | null;
        };
        /** @description The answer to `DELETE /v1/topics/{topic}/records`. */
        Trimmed: {
            /** @description The bounds after it of each partition that was asked for. */
            partition_bounds: components["schemas"]["PartitionBounds"][];
            /** @description The topic. */
            topic: string;
        };
        /** @description The place before which records are deleted: an offset, `time:<RFC 3339>` or `latest`. */
        TrimPlace: string;
        /**
         * @description What a limit counts.
         * @enum {string}
         */
        Unit: "bytes" | "bytes_per_second" | "milliseconds" | "count";
        /** @description Stop following. */
        UnsubscribeFrame: {
            /** @description The subscription. */
            sub: string;
            /** @description `unsubscribe` */
            type: components["schemas"]["UnsubscribeType"];
        };
        /** @enum {string} */
        UnsubscribeType: "unsubscribe";
        /** @description A record of `_usage`: what a tenant used in about a minute. Minutes without any use have none. */
        Usage: {
            /**
             * Format: int64
             * @description Connections that were open at the end of the span.
             */
            connections: number;
            /**
             * Format: int64
             * @description Their bytes, as they are stored.
             */
            delivered_bytes: number;
            /**
             * Format: int64
             * @description Records that were sent to readers.
             */
            delivered_records: number;
            /**
             * Format: int64
             * @description Live streams and subscriptions that were open at the end of the span.
             */
            followers: number;
            /**
             * Format: int64
             * @description Where the span begins, ms since the Unix epoch.
             */
            from: number;
            /**
             * Format: int64
             * @description Their bytes: payloads, keys, headers and content types.
             */
            published_bytes: number;
            /**
             * Format: int64
             * @description Records that were stored.
             */
            published_records: number;
            /**
             * Format: int64
             * @description Requests, and frames of WebSockets that ask for something.
             */
            requests: number;
            /**
             * Format: int64
             * @description Stored bytes that were kept at the end of the span, of all topics.
             */
            storage_bytes: number;
            /**
             * Format: int64
             * @description Where it ends.
             */
            to: number;
        };
        /** @description What a tenant uses. */
        UsageReport: {
            /** @description What was used in the span that was asked for, oldest first. */
            data: components["schemas"]["Usage"][];
            /** @description How finely `data` is told. */
            granularity: components["schemas"]["Granularity"];
            /** @description Since the last record in `_usage`. */
            now: components["schemas"]["Usage"];
        };
        /** @description What runs here. */
        Version: {
            /** @description The version of the API, the first part of its paths. */
            api: string;
            /** @description Always `plinth`. */
            name: string;
            /** @description The version of the server. */
            version: string;
        };
        /** @description A time such as `20s` or `500ms`, at most 60 s. */
        Wait: string;
        /** @description A stream of a wake. */
        WakeStream: {
            /** @description The last offset that is done with; `-1` when nothing is. */
            acked_offset: string;
            /** @description Whether there is something between both. */
            has_pending: boolean;
            /** @description How it came to be linked. */
            link_type: components["schemas"]["LinkType"];
            /** @description Its path. */
            path: string;
            /** @description The end of the stream. */
            tail_offset: string;
        };
        /** @description The webhook of a subscription. */
        Webhook: {
            /** @description How its calls are signed. */
            signing: components["schemas"]["WebhookSigning"];
            /** @description The address. */
            url: string;
        };
        /** @description A webhook. */
        WebhookRequest: {
            /** @description The address, `https://` and public unless the operator allows its host to be private. */
            url: string;
        };
        /** @description How the calls of a webhook are signed. */
        WebhookSigning: {
            /** @description `ed25519`. */
            alg: string;
            /** @description Where its public half is. */
            jwks_url: string;
            /** @description The id of the key that signs now. */
            kid: string;
        };
    };
    responses: never;
    parameters: never;
    requestBodies: never;
    headers: never;
    pathItems: never;
}
export type $defs = Record<string, never>;
export type operations = Record<string, never>;
