//! What tenants and keys use, and what they may use at most.
//!
//! Each tenant has a [`Meter`], and each key with quotas one more. Nothing here takes a lock.

mod usage;

use std::sync::Arc;

use self::usage::{OpenThing, Usage};
pub use self::usage::{Opened, UsageFigures};

/// What one tenant, or one key with quotas, has used.
#[derive(Debug, Default)]
pub struct Meter {
    usage: Usage,
}

/// The meters that a call counts on: that of its tenant, and that of its key if the key has one.
#[derive(Clone, Copy, Debug)]
pub struct Meters<'a> {
    /// Of the tenant.
    pub tenant: &'a Arc<Meter>,
    /// Of the key.
    pub key: Option<&'a Arc<Meter>>,
}

impl Meter {
    /// What was used since the start of the node, and what is open.
    #[must_use]
    pub fn usage(&self) -> UsageFigures {
        self.usage.figures()
    }
}

impl Meters<'_> {
    /// Counts a request.
    pub fn request(&self) {
        self.each(|meter| meter.usage.request());
    }

    /// Counts records that were stored, and their payload bytes.
    pub fn published(&self, records: u64, bytes: u64) {
        self.each(|meter| meter.usage.published(records, bytes));
    }

    /// Counts records that are sent to a reader, and about how many bytes they have as they are stored.
    pub fn delivered(&self, records: u64, bytes: u64) {
        self.each(|meter| meter.usage.delivered(records, bytes));
    }

    /// Counts a connection until the guard is dropped.
    #[must_use]
    pub fn connection(&self) -> Opened {
        Opened::count(*self, OpenThing::Connection)
    }

    /// Counts a live stream or subscription until the guard is dropped.
    #[must_use]
    pub fn follower(&self) -> Opened {
        Opened::count(*self, OpenThing::Follower)
    }

    fn each(&self, count: impl Fn(&Meter)) {
        count(self.tenant);
        if let Some(key) = self.key {
            count(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_key_uses_counts_for_its_tenant_too() {
        let (tenant, key) = (Arc::<Meter>::default(), Arc::<Meter>::default());
        let of_key = Meters { tenant: &tenant, key: Some(&key) };
        of_key.request();
        of_key.published(2, 30);
        Meters { tenant: &tenant, key: None }.delivered(5, 70);
        let (stream, connection) = (of_key.follower(), of_key.connection());
        let used = UsageFigures { requests: 1, records_published: 2, bytes_published: 30, ..UsageFigures::default() };
        let open = UsageFigures { followers: 1, connections: 1, ..used };
        assert_eq!(key.usage(), open);
        assert_eq!(tenant.usage(), UsageFigures { records_delivered: 5, bytes_delivered: 70, ..open });
        drop((stream, connection));
        assert_eq!(key.usage(), used);
    }
}
