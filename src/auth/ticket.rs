//! One-time tickets: a caller's rights for one connection that cannot send a header. Held in memory by this node only.
//!
//! A tenant that makes very many takes the place of its own oldest, never of another tenant's; only when all places of
//! the node are taken, the tenant that has most gives way.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use plinth_api::limits::{TENANT_TICKETS_MAX, TICKET_TTL_MS};
use plinth_storage::ids::{TenantId, Timestamp};

use super::caller::Caller;
use super::registry::TenantRef;
use super::secret::{self, SecretHash};

/// Most tickets of all tenants that wait for their use.
const TICKETS_MAX: usize = 200_000;

/// A one-time ticket.
#[derive(Clone, Debug)]
pub struct Ticket {
    /// The text that goes into `?ticket=`.
    pub ticket: String,
    /// When it ends.
    pub expires_at: Timestamp,
}

pub(super) struct Tickets(Mutex<Waiting>);

struct Waiting {
    tickets: HashMap<SecretHash, (Caller, Timestamp)>,
    /// By tenant, oldest first; one that is used already stands in it until it is the oldest.
    made: HashMap<Option<TenantId>, VecDeque<SecretHash>>,
    /// How many stand in `made`.
    held: usize,
    tenant_max: usize,
    max: usize,
}

impl Tickets {
    pub(super) fn new() -> Self {
        Self::bounded(TENANT_TICKETS_MAX, TICKETS_MAX)
    }

    fn bounded(tenant_max: usize, max: usize) -> Self {
        let (tickets, made) = (HashMap::new(), HashMap::new());
        Self(Mutex::new(Waiting { tickets, made, held: 0, tenant_max, max }))
    }

    /// A ticket with the rights of `caller`, which shows `tag`.
    pub(super) fn issue(&self, caller: &Caller, tag: &str, now: Timestamp) -> Ticket {
        self.issue_in(caller.tenant().map(TenantRef::id), caller, tag, now)
    }

    fn issue_in(&self, tenant: Option<TenantId>, caller: &Caller, tag: &str, now: Timestamp) -> Ticket {
        let (ticket, expires_at) = (secret::new_ticket(tag), Timestamp(now.0 + TICKET_TTL_MS));
        self.waiting().insert(tenant, secret::hash(&ticket), (caller.clone(), expires_at), now);
        Ticket { ticket, expires_at }
    }

    /// The caller of a ticket, once: the second use finds nothing.
    pub(super) fn redeem(&self, ticket: &str, now: Timestamp) -> Option<Caller> {
        let (caller, expires_at) = self.waiting().tickets.remove(&secret::hash(ticket))?;
        (now < expires_at).then_some(caller)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn insert(&mut self, tenant: Option<TenantId>, hash: SecretHash, ticket: (Caller, Timestamp), now: Timestamp) {
        while self.oldest_goes(tenant, now) {
            self.drop_oldest(tenant);
        }
        if self.held >= self.max {
            let most = self.made.iter().max_by_key(|(_, made)| made.len()).map(|(most, _)| *most);
            most.into_iter().for_each(|most| self.drop_oldest(most));
        }
        self.tickets.insert(hash, ticket);
        self.made.entry(tenant).or_default().push_back(hash);
        self.held += 1;
    }

    /// Whether the oldest of the tenant is used or over, or must make room.
    fn oldest_goes(&self, tenant: Option<TenantId>, now: Timestamp) -> bool {
        let Some(made) = self.made.get(&tenant) else { return false };
        let waits = |hash| self.tickets.get(hash).is_some_and(|(_, expires_at)| now < *expires_at);
        made.len() >= self.tenant_max || made.front().is_some_and(|oldest| !waits(oldest))
    }

    fn drop_oldest(&mut self, tenant: Option<TenantId>) {
        let Some(made) = self.made.get_mut(&tenant) else { return };
        if let Some(oldest) = made.pop_front() {
            self.tickets.remove(&oldest);
            self.held -= 1;
        }
        if made.is_empty() {
            self.made.remove(&tenant);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000);

    /// Whether each of the tickets is still good.
    fn good(tickets: &Tickets, made: &[Ticket]) -> Vec<bool> {
        made.iter().map(|ticket| tickets.redeem(&ticket.ticket, NOW).is_some()).collect()
    }

    #[test]
    fn a_ticket_is_good_once() {
        let tickets = Tickets::new();
        let ticket = tickets.issue(&Caller::root(None), "tag", NOW);
        assert_eq!(ticket.expires_at, Timestamp(1_000 + TICKET_TTL_MS));
        assert!(tickets.redeem(&ticket.ticket, Timestamp(1_001)).is_some());
        assert!(tickets.redeem(&ticket.ticket, Timestamp(1_001)).is_none());
    }

    #[test]
    fn a_ticket_ends_with_its_time() {
        let tickets = Tickets::new();
        let ticket = tickets.issue(&Caller::root(None), "tag", NOW);
        assert!(tickets.redeem(&ticket.ticket, ticket.expires_at).is_none());
        assert!(tickets.redeem("plt_unknown", NOW).is_none());
    }

    // Fails when a ticket of anybody takes the place of the oldest of all.
    #[test]
    fn who_makes_very_many_tickets_loses_only_the_own_oldest() {
        let tickets = Tickets::bounded(3, 5);
        let issue = |id: u128| tickets.issue_in(Some(TenantId(id.into())), &Caller::root(None), "tag", NOW);
        let (many, few) = (1, 2);
        let other = issue(few);
        let made: Vec<_> = (0..10).map(|_| issue(many)).collect();
        let another = issue(few);
        // All places are taken: who has most gives way, and not who comes.
        let last = issue(few);
        assert_eq!(good(&tickets, &[other, another, last]), [true; 3]);
        assert_eq!(good(&tickets, &made), [[false; 8].as_slice(), &[true; 2]].concat());
    }

    #[test]
    fn a_tenant_has_no_more_than_its_limit_whatever_room_there_is() {
        let tickets = Tickets::bounded(3, 100);
        let made: Vec<_> = (0..5).map(|_| tickets.issue(&Caller::root(None), "tag", NOW)).collect();
        assert_eq!(good(&tickets, &made), [false, false, true, true, true]);
    }

    #[test]
    fn tickets_that_are_used_or_over_take_no_place() {
        let tickets = Tickets::bounded(3, 3);
        let caller = Caller::root(None);
        for number in 0..10 {
            let ticket = tickets.issue(&caller, "tag", NOW);
            assert!(tickets.redeem(&ticket.ticket, NOW).is_some(), "{number}");
        }
        drop(tickets.issue(&caller, "tag", NOW));
        drop(tickets.issue(&caller, "tag", Timestamp(NOW.0 + TICKET_TTL_MS)));
        let waiting = tickets.waiting();
        assert_eq!((waiting.tickets.len(), waiting.held), (1, 1));
    }
}
