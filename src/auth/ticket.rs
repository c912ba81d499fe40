//! One-time tickets: a caller's rights for one connection that cannot send a header. Held in memory by this node only.

use plinth_api::limits::TICKET_TTL_MS;
use plinth_storage::ids::Timestamp;
use quick_cache::sync::Cache;

use super::caller::Caller;
use super::secret::{self, SecretHash};

/// Most tickets that wait for their use; the oldest unused ones give way.
const TICKETS_MAX: usize = 100_000;

/// A one-time ticket.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The text that goes into `?ticket=`.
    pub ticket: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

pub(super) struct Tickets {
    waiting: Cache<SecretHash, (Caller, Timestamp)>,
}

impl Tickets {
    pub(super) fn new() -> Self {
        Self { waiting: Cache::new(TICKETS_MAX) }
    }

    /// A ticket with the rights of `caller`, which shows `tag`.
    pub(super) fn issue(&self, caller: &Caller, tag: &str, now: Timestamp) -> Ticket {
        let (ticket, expires_at) = (secret::new_ticket(tag), Timestamp(now.0 + TICKET_TTL_MS));
        self.waiting.insert(secret::hash(&ticket), (caller.clone(), expires_at));
        Ticket { ticket, expires_at }
    }

    /// The caller of a ticket, once: the second use finds nothing.
    pub(super) fn redeem(&self, ticket: &str, now: Timestamp) -> Option<Caller> {
        let (_, (caller, expires_at)) = self.waiting.remove(&secret::hash(ticket))?;
        (now < expires_at).then_some(caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_good_once() {
        let tickets = Tickets::new();
        let ticket = tickets.issue(&Caller::root(None), "tag", Timestamp(1_000));
        assert_eq!(ticket.expires_at, Timestamp(1_000 + TICKET_TTL_MS));
        assert!(tickets.redeem(&ticket.ticket, Timestamp(1_001)).is_some());
        assert!(tickets.redeem(&ticket.ticket, Timestamp(1_001)).is_none());
    }

    #[test]
    fn a_ticket_ends_with_its_time() {
        let tickets = Tickets::new();
        let ticket = tickets.issue(&Caller::root(None), "tag", Timestamp(1_000));
        assert!(tickets.redeem(&ticket.ticket, ticket.expires_at).is_none());
        assert!(tickets.redeem("plt_unknown", Timestamp(1_000)).is_none());
    }
}
