//! Records past their time to live, by a clock that is set by hand.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use plinth_storage::env::Clock;
use plinth_storage::ids::Timestamp;
use plinth_storage::record::{RecordView, StoredBatch};

use super::*;

const BEGIN: u64 = 1_700_000_000_000;

/// A clock that stands until it is moved.
pub(super) struct Hand(AtomicU64);

impl Default for Hand {
    fn default() -> Self {
        Self(AtomicU64::new(BEGIN))
    }
}

impl Clock for Hand {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::Relaxed))
    }
}

pub(super) async fn world_and_clock() -> (World, Arc<Hand>) {
    let clock = Arc::new(Hand::default());
    let mut options = LogOptions::new(store::open("memory://").expect("a store"));
    options.clock = Arc::<Hand>::clone(&clock);
    (world_of(options).await, clock)
}

impl Hand {
    pub(super) fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }

    pub(super) fn go_back(&self, ms: u64) {
        self.0.fetch_sub(ms, Ordering::Relaxed);
    }
}

/// Records named by letters; a capital one lives for a second.
fn letters(text: &str) -> Vec<NewRecord> {
    let ttl_ms = |letter: char| letter.is_uppercase().then_some(1_000).and_then(NonZeroU64::new);
    text.chars().map(|letter| NewRecord { ttl_ms: ttl_ms(letter), ..record(&letter.to_string()) }).collect()
}

impl World {
    async fn letters(&self, text: &str) {
        let publish =
            Publish { partition: None, sticky: 0, records: letters(text), stored: None, durability: None, terms: None };
        self.broker.publish(&self.to(Action::Publish, "orders"), publish).await.expect("published");
    }

    /// A page in words.
    async fn shown(&self, from: From, unit: Unit, limit: usize) -> String {
        let request = PageRequest { unit, limit, ..self.page_of("orders", from) };
        words(&self.broker.page(request).await.expect("a page"), unit)
    }
}

fn words(page: &Page, unit: Unit) -> String {
    let mut words: Vec<String> = page.slices.iter().map(|slice| piece(slice, unit)).collect();
    words.extend(page.gaps.iter().map(|gap| format!("{} {}-{}", gap.reason, gap.requested, gap.resumed_at)));
    words.join(" | ")
}

fn piece(slice: &FollowedBatch, unit: Unit) -> String {
    let (head, form) = (slice.frame_head(), slice.stored_form().concat());
    match unit {
        Unit::Record => format!("{}:{}", slice.base(), texts(std::slice::from_ref(slice)).concat()),
        Unit::Batch => {
            let batch = plinth_storage::record::Batch::parse(form.into(), head.count, head.body_crc).expect("a batch");
            let stored = StoredBatch { base: slice.stored.base, timestamp: slice.stored.timestamp, batch };
            let payload = |record: RecordView| String::from_utf8_lossy(&record.payload).into_owned();
            format!("{}:{}", head.offset, stored.records().map(payload).collect::<String>())
        }
    }
}

// Fails without the look at the runs of a batch in `Broker::take`, and, for what lies in two batches, without the joining
// of gaps in `Found::pass`.
#[tokio::test]
async fn a_page_tells_a_gap_where_records_have_expired() {
    let (world, clock) = world_and_clock().await;
    world.letters("aBCd").await;
    world.letters("eFG").await;
    world.letters("HIj").await;
    assert_eq!(world.shown(From::Earliest, Unit::Record, 99).await, "0:aBCd | 4:eFG | 7:HIj");
    clock.pass(999);
    assert_eq!(world.shown(From::Earliest, Unit::Record, 99).await, "0:aBCd | 4:eFG | 7:HIj");
    clock.pass(1);
    assert_eq!(
        world.shown(From::Earliest, Unit::Record, 99).await,
        "0:a | 3:d | 4:e | 9:j | expired 1-3 | expired 5-9"
    );
    assert_eq!(world.shown(From::Offset(2), Unit::Record, 2).await, "3:d | 4:e | expired 2-3 | expired 5-9");
    assert_eq!(world.shown(From::Offset(6), Unit::Record, 1).await, "9:j | expired 6-9");
}

// Fails when a batch of which something has expired travels whole.
#[tokio::test]
async fn stored_batches_come_without_what_has_expired_and_their_heads_say_it() {
    let (world, clock) = world_and_clock().await;
    world.letters("aBCd").await;
    world.letters("ef").await;
    world.letters("gH").await;
    let mut all = "0:aBCd | 4:ef | 6:gH";
    for from in [0, 2, 3] {
        assert_eq!(world.shown(From::Offset(from), Unit::Batch, 99).await, all);
    }
    clock.pass(1_000);
    all = "0:a | 3:d | 4:ef | 6:g | expired 7-8";
    assert_eq!(world.shown(From::Earliest, Unit::Batch, 99).await, all, "no head tells of what is at the end");
    assert_eq!(world.shown(From::Offset(2), Unit::Batch, 99).await, "3:d | 4:ef | 6:g | expired 7-8");
    assert_eq!(world.shown(From::Offset(5), Unit::Batch, 1).await, "4:ef");
    assert_eq!(world.shown(From::Offset(7), Unit::Batch, 99).await, "expired 7-8");
}

// Fails when the clock is looked at only when records are read from the log: what was read waits for slow readers.
#[tokio::test]
async fn a_follower_passes_over_what_has_expired_and_tells_it() {
    let (world, clock) = world_and_clock().await;
    world.letters("aBCd").await;
    world.letters("eFG").await;
    world.letters("Hij").await;
    let mut follower = world.follow(&["orders"], From::Earliest).await;
    let mut late = world.follow(&["orders"], From::Offset(1)).await;
    assert_eq!(next(&mut follower).await, "orders/0@0 a B C d");
    clock.pass(1_000);
    for expected in ["orders/0@4 e", "gap orders/0 5..8 expired", "orders/0@8 i j"] {
        assert_eq!(next(&mut follower).await, expected);
    }
    for expected in ["gap orders/0 1..3 expired", "orders/0@3 d", "orders/0@4 e", "gap orders/0 5..8 expired"] {
        assert_eq!(next(&mut late).await, expected);
    }
    let mut again = world.follow(&["orders"], From::Cursor(late.cursor())).await;
    assert_eq!(next(&mut again).await, "orders/0@8 i j");
    assert_eq!(next(&mut follower).await, "caught up");
    world.letters("K").await;
    assert_eq!(next(&mut follower).await, "orders/0@10 K");
}

// Fails without `Follower::take_back`, and when it forgets how far the batch was used.
#[tokio::test]
async fn the_rest_of_a_batch_that_a_reader_could_not_take_expires_too() {
    let (world, clock) = world_and_clock().await;
    world.letters("aBcD").await;
    world.letters("ef").await;
    let mut follower = world.follow(&["orders"], From::Earliest).await;
    let Event::Records(batch) = follower.next().await.expect("an event") else { panic!("records") };
    assert!(batch.is_live_after(1));
    clock.pass(1_000);
    assert!(!batch.is_live_after(1));
    follower.take_back(&batch, 1);
    for expected in ["gap orders/0 1..2 expired", "orders/0@2 c", "gap orders/0 3..4 expired", "orders/0@4 e f"] {
        assert_eq!(next(&mut follower).await, expected);
    }
    assert_eq!(next(&mut follower).await, "caught up");
}

#[tokio::test]
async fn the_text_of_a_record_says_nothing_of_its_time_to_live() {
    let (world, _) = world_and_clock().await;
    world.letters("A").await;
    let page = world.page("orders", From::Earliest).await.expect("a page");
    let line = String::from_utf8(page.slices[0].ndjson().to_vec()).expect("text");
    assert!(!line.contains("headers") && line.ends_with("\"content_type\":\"text/plain\",\"text\":\"A\"}\n"), "{line}");
}
