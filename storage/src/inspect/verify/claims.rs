//! The claims of every shard: each epoch is there, and each names the owner before it.

use super::Verifier;
use crate::error::{Kind, Result};
use crate::ids::{Epoch, SessionId, ShardId};
use crate::layout::ObjectName;
use crate::shard::changes::Entry;
use crate::shard::claim::{self, Claim};

impl Verifier<'_, '_> {
    pub(super) async fn read_claims(&mut self) -> Result<()> {
        let claims = self.listing.claims.iter();
        let names = claims.flat_map(|(shard, epochs)| epochs.iter().map(|epoch| ObjectName::Claim(*shard, *epoch)));
        for (name, seen) in self.see_all(names.collect()).await? {
            self.totals.claims += 1;
            let Some((header, body)) = self.judge(name, seen) else { continue };
            let ObjectName::Claim(shard, _) = name else { continue };
            match claim::parse(&header, body, shard) {
                Some(claim) => self.claims.add(claim),
                None => self.fault(name.path(), "is not a claim of the shard that its name says"),
            }
        }
        for shard in self.claims.0.keys().copied().collect::<Vec<_>>() {
            self.check_chain(shard);
        }
        Ok(())
    }

    fn check_chain(&mut self, shard: ShardId) {
        if shard.0 >= self.shards {
            let text = format!("claims a shard of a cluster that has {}", self.shards);
            self.note(ObjectName::Claim(shard, Epoch(1)).path(), text);
        }
        let ends = self.claims.ends();
        let listed = self.listing.claims.get(&shard).cloned().unwrap_or_default();
        let last = listed.last().map_or(0, |epoch| epoch.0);
        let missing: Vec<_> = (1..last).map(Epoch).filter(|epoch| listed.binary_search(epoch).is_err()).collect();
        for epoch in missing {
            self.fault(
                ObjectName::Claim(shard, epoch).path(),
                format!("is missing: the shard has come to epoch {last}"),
            );
        }
        let claims: Vec<Claim> =
            self.claims.0.get(&shard).into_iter().flat_map(|claims| claims.values().copied()).collect();
        for claim in claims {
            let before = self.claims.get(shard, Epoch(claim.epoch.0 - 1)).map(|before| before.owner);
            let named = claim.previous.map(|(session, _)| session);
            let other_end = claim.previous.filter(|(session, end)| ends.get(session).is_some_and(|other| other != end));
            if let Some((session, end)) = other_end {
                let text =
                    format!("says that the log of session {session} ended at slot {end}, another claim says otherwise");
                self.fault(ObjectName::Claim(shard, claim.epoch).path(), text);
            }
            let what = match (before, named) {
                (Some(owner), Some(named)) if owner != named => {
                    format!("names session {named} as the owner before, who was {owner}")
                }
                (Some(owner), None) => format!("names no owner before, who was {owner}"),
                (None, Some(_)) | (Some(_), Some(_)) | (None, None) => continue,
            };
            self.fault(ObjectName::Claim(shard, claim.epoch).path(), what);
        }
    }

    /// Every shard that a session says it owns was claimed by it. Gives these shards.
    pub(super) async fn check_acquired(&mut self, session: SessionId, entries: &[Entry]) -> Result<Vec<ShardId>> {
        let acquired = entries.iter().filter_map(|entry| {
            if let Entry::Acquire { shard, epoch } = entry { Some((*shard, *epoch)) } else { None }
        });
        let acquired: Vec<_> = acquired.collect();
        for (shard, epoch) in acquired.iter().copied() {
            let known = self.claims.get(shard, epoch).copied();
            let claim = match known {
                Some(claim) => Some(claim),
                // A session that began after the claims were listed.
                None => match claim::read(&self.stores, shard, epoch).await {
                    Err(error) if error.kind() != Kind::Corrupt => return Err(error),
                    read => read.ok(),
                },
            };
            let what = match claim {
                Some(claim) if claim.owner == session => continue,
                Some(claim) => format!("names session {}, but session {session} owned the shard", claim.owner),
                None => format!("is missing: session {session} owned the shard"),
            };
            self.fault(ObjectName::Claim(shard, epoch).path(), what);
        }
        Ok(acquired.into_iter().map(|(shard, _)| shard).collect())
    }
}
