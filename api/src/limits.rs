//! Every limit of the public surface, in one place: the API shows them, the errors name them, the code enforces them.

/// Longest topic name, in bytes.
pub const TOPIC_NAME_BYTES_MAX: usize = 255;
/// Largest payload of one record, in bytes, unless the topic sets less.
pub const RECORD_BYTES_MAX: usize = 1024 * 1024;
/// Largest body of a batch publish, in bytes.
pub const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest body of a publish in the form in which batches are stored, in bytes: any batch that is within the limits by its
/// content fits.
pub const STORED_BATCH_BYTES_MAX: usize = BATCH_BYTES_MAX + 512 * 1024;
/// Largest WebSocket message from a client, in bytes: a batch and what is around it.
pub const FRAME_BYTES_MAX: usize = BATCH_BYTES_MAX + 64 * 1024;
/// Longest `id` of a WebSocket request, in bytes.
pub const FRAME_ID_BYTES_MAX: usize = 255;
/// Most records in one batch.
pub const BATCH_RECORDS_MAX: usize = 1000;
/// Most headers of one record.
pub const RECORD_HEADERS_MAX: usize = 64;
/// Largest sum of header names and values of one record, in bytes.
pub const RECORD_HEADERS_BYTES_MAX: usize = 16 * 1024;
/// Longest record key, in bytes.
pub const RECORD_KEY_BYTES_MAX: usize = 1024;
/// Shortest time to live of a record, in milliseconds.
pub const RECORD_TTL_MS_MIN: u64 = 1000;
/// Longest time to live of a record, in milliseconds: `10y`, years of 365.25 days.
pub const RECORD_TTL_MS_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000 + 60 * 60 * 60 * 1000;
/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Longest id of a producer, in bytes.
pub const PRODUCER_ID_BYTES_MAX: usize = 255;
/// Largest epoch, sequence, fencing token and expected tail: what every JSON reader can hold.
pub const NUMBER_MAX: u64 = (1 << 53) - 1;
/// Most partitions of one topic.
pub const PARTITIONS_MAX: u32 = 1024;
/// Shortest age that a topic may keep its records for, in milliseconds.
pub const RETENTION_AGE_MS_MIN: u64 = 1000;
/// Longest age that a topic may keep its records for, in milliseconds: 36,500 days.
pub const RETENTION_AGE_MS_MAX: u64 = 36_500 * 24 * 60 * 60 * 1000;
/// Largest number of bytes that a topic may keep of each partition.
pub const RETENTION_BYTES_MAX: u64 = NUMBER_MAX;
/// Most topics and patterns of one `/v1/stream` or WebSocket subscription.
pub const STREAM_TOPICS_MAX: usize = 100;
/// Most partitions that one live stream or WebSocket subscription follows.
pub const STREAM_PARTITIONS_MAX: usize = 10_000;
/// Most subscriptions on one WebSocket connection.
pub const CONNECTION_SUBSCRIPTIONS_MAX: usize = 100;
/// Most records in one page.
pub const PAGE_RECORDS_MAX: usize = 10_000;
/// Records in a page when the request names no limit.
pub const PAGE_RECORDS_DEFAULT: usize = 1000;
/// Largest sum of payload bytes in one page.
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest wait of a long-poll, in milliseconds.
pub const WAIT_MS_MAX: u64 = 60_000;
/// Most items in one page of a list.
pub const LIST_ITEMS_MAX: usize = 1000;
/// Items in a page of a list when the request names no limit.
pub const LIST_ITEMS_DEFAULT: usize = 100;
/// Most partitions of the topics in one page of a list, unless a single topic has more: the page ends before.
pub const LIST_PARTITIONS_MAX: usize = 10_000;
/// Longest tenant name, in bytes.
pub const TENANT_NAME_BYTES_MAX: usize = 63;
/// Most scopes of one API key.
pub const KEY_SCOPES_MAX: usize = 100;
/// Life of a one-time ticket, in milliseconds.
pub const TICKET_TTL_MS: u64 = 30_000;
/// How long a browser that has redeemed a ticket may come back after a broken connection, in milliseconds.
pub const RECONNECT_TTL_MS: u64 = 12 * 60 * 60 * 1000;
