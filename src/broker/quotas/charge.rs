//! What is taken of the quotas before the work, and settled after it.

use plinth_api::quotas::Quota;

use super::{Exceeded, Meters};

/// What a publish has taken. Dropped without being settled it counts whole: who does not wait for his answer, or gets none,
/// may have stored it all.
#[derive(Debug)]
#[must_use]
pub(in crate::broker) struct PublishCharge<'a> {
    meters: Meters<'a>,
    records: u64,
    bytes: u64,
    open: bool,
}

/// What a page may take at most, owed until it is known.
#[derive(Debug)]
#[must_use]
pub(in crate::broker) struct PageCharge<'a> {
    meters: Meters<'a>,
    records: u64,
    bytes: u64,
}

impl<'a> Meters<'a> {
    /// Takes what a publish will use.
    ///
    /// # Errors
    /// The quota that is used up; nothing is taken then.
    pub(in crate::broker) fn take_publish(self, records: u64, bytes: u64) -> Result<PublishCharge<'a>, Exceeded> {
        self.take(&of_publish(records, bytes))?;
        Ok(PublishCharge { meters: self, records, bytes, open: true })
    }

    /// Owes the most that a page may have.
    ///
    /// # Errors
    /// The quota of which more is owed than a second brings: by pages before, or by others at the same time.
    pub(in crate::broker) fn owe_page(self, records: u64, bytes: u64) -> Result<PageCharge<'a>, Exceeded> {
        let quotas = [Quota::DeliveredBytesPerSecond, Quota::DeliveredRecordsPerSecond];
        self.each().try_for_each(|(meter, whose)| meter.check(whose, quotas))?;
        self.each().for_each(|(meter, _)| {
            meter.owe(records, bytes);
        });
        Ok(PageCharge { meters: self, records, bytes })
    }
}

impl PublishCharge<'_> {
    /// So much was stored.
    pub(in crate::broker) fn settle(mut self, records: u64, bytes: u64) {
        self.open = false;
        self.meters.published(records, bytes);
    }

    /// Nothing was stored.
    pub(in crate::broker) fn give_back(mut self) {
        self.open = false;
        let taken = of_publish(self.records, self.bytes);
        self.meters.each().for_each(|(meter, _)| meter.give_back(&taken));
    }
}

impl Drop for PublishCharge<'_> {
    fn drop(&mut self) {
        if self.open {
            self.meters.published(self.records, self.bytes);
            self.meters.tenant.stored(self.bytes);
        }
    }
}

impl PageCharge<'_> {
    /// So much is delivered.
    pub(in crate::broker) fn settle(self, records: u64, bytes: u64) {
        let meters = self.meters;
        drop(self);
        meters.delivered(records, bytes);
    }
}

impl Drop for PageCharge<'_> {
    fn drop(&mut self) {
        let owed = [(Quota::DeliveredBytesPerSecond, self.bytes), (Quota::DeliveredRecordsPerSecond, self.records)];
        self.meters.each().for_each(|(meter, _)| meter.give_back(&owed));
    }
}

fn of_publish(records: u64, bytes: u64) -> [(Quota, u64); 2] {
    [(Quota::PublishRecordsPerSecond, records), (Quota::PublishBytesPerSecond, bytes)]
}
