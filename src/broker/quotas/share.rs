//! What requests under way may hold in memory, and how tenants share it.
//!
//! Publishes and pages have a capacity each: readers that take their time never refuse a publish, and the other way round.
//! Of each a tenant may hold as much as is free (the dynamic threshold of Choudhury and Hahne for shared buffers, 1998). Alone it gets
//! half; `n` tenants that want all they can get have a share of one part in `n + 1` each, and as much is free for whoever comes
//! next. So who holds more than his share is refused first, who holds nothing gets in, and no list of tenants is needed: two
//! atomic numbers, no lock. Nobody waits here: a client that is refused comes back, and what queues up is at the clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Error, Meter};

/// What a request holds besides its body: its head, its records and its answer.
const REQUEST_BYTES: u64 = 4 * 1024;

/// What holds memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) enum Held {
    /// Publishes: bodies, and records that wait for their answer.
    Publishes,
    /// Pages: batches that wait to be taken.
    Pages,
}

/// The capacity of a node for requests of one kind that are under way.
#[derive(Debug)]
pub(in crate::broker) struct Capacity {
    held_by: Held,
    bytes_max: u64,
    held: AtomicU64,
}

/// The room of one request, free again when this is dropped.
#[derive(Debug)]
pub struct Room {
    capacity: Arc<Capacity>,
    meter: Arc<Meter>,
    bytes: u64,
}

impl Capacity {
    pub(in crate::broker) fn new(held_by: Held, bytes_max: u64) -> Arc<Self> {
        Arc::new(Self { held_by, bytes_max, held: AtomicU64::new(0) })
    }

    /// Room for a request with a body of `body` bytes.
    ///
    /// # Errors
    /// `Busy` when the node is full, or when the tenant holds more than is free.
    pub(in crate::broker) fn enter(self: &Arc<Self>, meter: &Arc<Meter>, body: u64) -> Result<Room, Error> {
        let mut room = Room { capacity: Arc::clone(self), meter: Arc::clone(meter), bytes: 0 };
        room.grow(body.saturating_add(REQUEST_BYTES))?;
        Ok(room)
    }
}

impl Held {
    fn name(self) -> &'static str {
        match self {
            Self::Publishes => "publishes",
            Self::Pages => "pages",
        }
    }
}

impl Room {
    /// What the tenant holds of this kind.
    fn own(&self) -> &AtomicU64 {
        &self.meter.waiting[self.capacity.held_by as usize]
    }

    /// Room for `more` bytes of the same request.
    ///
    /// # Errors
    /// As for a new one; it keeps what it has.
    pub fn grow(&mut self, more: u64) -> Result<(), Error> {
        let held = self.capacity.held.fetch_add(more, Ordering::Relaxed);
        let own = self.own().fetch_add(more, Ordering::Relaxed);
        self.bytes += more;
        let limit = self.capacity.bytes_max;
        let free = limit.saturating_sub(held);
        if more <= free && own <= free {
            return Ok(());
        }
        self.give_back(more);
        let what = self.capacity.held_by.name();
        Err(Error::Busy(if more > free {
            format!("the node holds as many bytes of {what} as it may, {limit}")
        } else {
            format!("the node is full, and {what} of the tenant hold {own} bytes of it, more than its share")
        }))
    }

    /// Gives back what a body of `body` bytes does not need.
    pub fn shrink(&mut self, body: u64) {
        let less = self.bytes.saturating_sub(body.saturating_add(REQUEST_BYTES));
        self.give_back(less);
    }

    fn give_back(&mut self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        self.bytes -= bytes;
        self.capacity.held.fetch_sub(bytes, Ordering::Relaxed);
        self.own().fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.give_back(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIB: u64 = 1024;

    fn publishes() -> Arc<Capacity> {
        Capacity::new(Held::Publishes, 1024 * KIB)
    }

    fn meters(count: usize) -> Vec<Arc<Meter>> {
        (0..count).map(|_| Arc::default()).collect()
    }

    /// Takes room for bodies of 4 KiB, 8 KiB each, until it is refused.
    fn fill(capacity: &Arc<Capacity>, meter: &Arc<Meter>) -> Vec<Room> {
        std::iter::from_fn(|| capacity.enter(meter, 4 * KIB).ok()).collect()
    }

    fn own(meter: &Meter) -> &AtomicU64 {
        &meter.waiting[Held::Publishes as usize]
    }

    fn held(rooms: &[Room]) -> u64 {
        rooms.iter().map(|room| room.bytes).sum()
    }

    #[test]
    fn one_tenant_alone_gets_half_and_many_that_want_all_come_to_equal_shares() {
        let (capacity, tenants) = (publishes(), meters(7));
        let mut rooms = vec![fill(&capacity, &tenants[0])];
        assert!((512 * KIB..=520 * KIB).contains(&held(&rooms[0])), "half of it, and the one that reaches it");
        rooms.extend(tenants[1..].iter().map(|_| Vec::new()));
        // In turns, each ends one request and begins as many as it may.
        for _ in 0..200 {
            for (rooms, tenant) in rooms.iter_mut().zip(&tenants) {
                rooms.pop();
                rooms.extend(fill(&capacity, tenant));
            }
        }
        for rooms in &rooms {
            assert!((112 * KIB..=144 * KIB).contains(&held(rooms)), "{} of an eighth, 128 KiB", held(rooms) / KIB);
        }
    }

    // Fails when what is refused of a growing request is kept.
    #[test]
    fn a_request_takes_room_as_it_grows_and_keeps_what_it_has_when_there_is_no_more() {
        let (capacity, tenants) = (publishes(), meters(1));
        let mut rooms: Vec<Room> = (0..100).filter_map(|_| capacity.enter(&tenants[0], 0).ok()).collect();
        assert_eq!(rooms.len(), 100, "bodies of unknown length take nothing before they come");
        let grown = rooms.iter_mut().filter_map(|room| room.grow(8 * KIB).ok()).count();
        assert!((13..=16).contains(&grown), "{grown}: half of it is 512 KiB, 400 KiB are taken");
        assert_eq!(held(&rooms), capacity.held.load(Ordering::Relaxed));
    }

    // Fails with a bound of all and no share: the first takes everything.
    #[test]
    fn who_holds_nothing_gets_in_however_many_want_all() {
        let (capacity, tenants) = (publishes(), meters(6));
        let full: Vec<_> = tenants[..5].iter().map(|tenant| fill(&capacity, tenant)).collect();
        assert!(tenants[..5].iter().all(|tenant| capacity.enter(tenant, 8 * KIB).is_err()));
        assert!(capacity.enter(&tenants[5], 8 * KIB).is_ok());
        drop(full);
    }

    // Fails when both count on one number of the node or of the tenant.
    #[test]
    fn pages_take_nothing_of_the_share_of_publishes() {
        let (publishes, pages) = (publishes(), Capacity::new(Held::Pages, 1024 * KIB));
        let meter = Arc::default();
        let (full, before) = (fill(&pages, &meter), held(&fill(&publishes, &meter)));
        assert!(pages.enter(&meter, 4 * KIB).is_err(), "the tenant's pages hold their share");
        drop(full);
        assert_eq!(before, held(&fill(&publishes, &meter)), "publishes get as much beside them as alone");
    }

    // Fails when what is refused is not given back, or a tenant is not forgotten when its last room is.
    #[test]
    fn what_is_given_back_leaves_nothing() {
        let (capacity, tenants) = (publishes(), meters(2));
        let mut large = capacity.enter(&tenants[0], 512 * KIB).expect("nothing is held");
        assert!(capacity.enter(&tenants[0], 4 * KIB).is_err(), "it has more than is free");
        large.shrink(4 * KIB);
        assert_eq!(own(&tenants[0]).load(Ordering::Relaxed), 8 * KIB);
        large.shrink(400 * KIB);
        assert_eq!(own(&tenants[0]).load(Ordering::Relaxed), 8 * KIB, "it never grows");
        drop((large, fill(&capacity, &tenants[1])));
        let left = [&capacity.held, own(&tenants[0]), own(&tenants[1])];
        assert_eq!(left.map(|number| number.load(Ordering::Relaxed)), [0; 3]);
    }

    proptest! {
        // Fails without the bound of all, or when somebody is refused who holds less than is free.
        #[test]
        fn the_capacity_is_never_exceeded_and_nobody_is_refused_who_holds_less_than_is_free(
            calls in proptest::collection::vec((0_usize..5, 1_u64..200, any::<bool>()), 1..400),
        ) {
            let (capacity, tenants) = (publishes(), meters(5));
            let mut rooms: Vec<Vec<Room>> = tenants.iter().map(|_| Vec::new()).collect();
            for (tenant, kib, give_back) in calls {
                if give_back {
                    rooms[tenant].pop();
                    continue;
                }
                let free = 1024 * KIB - capacity.held.load(Ordering::Relaxed);
                let (own, wanted) = (held(&rooms[tenant]), kib * KIB + REQUEST_BYTES);
                match capacity.enter(&tenants[tenant], kib * KIB) {
                    Ok(room) => rooms[tenant].push(room),
                    Err(_) => prop_assert!(own > free || wanted > free),
                }
                let sum: u64 = rooms.iter().map(|rooms| held(rooms)).sum();
                prop_assert_eq!(sum, capacity.held.load(Ordering::Relaxed));
                prop_assert!(sum <= 1024 * KIB);
            }
        }
    }
}
