//! The one task of subscriptions: it looks at streams that have moved, and does what is due.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

#[cfg(test)]
use futures::future::join_all;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use super::deliver::below;
use super::moved::Names;
use super::schedule::Key;
use super::store::Which;
use super::{Sub, Wakes, turn};
use crate::broker::documents::{self, WakeDoc};
use crate::broker::error::Error;

/// Subscriptions that are read in one step.
const STEP: usize = 500;
/// The longest rest, after which tenants that were deleted are let go.
const REST: Duration = Duration::from_secs(60);
/// What fails is tried again after this.
const AGAIN: Duration = Duration::from_secs(1);

/// A subscription that is worked on: not given out again as long as this lives.
struct Busy {
    wakes: Wakes,
    key: Key,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.wakes.schedule().done(&self.key);
        self.wakes.0.news.notify_one();
    }
}

impl Wakes {
    /// Keeps subscriptions until it is dropped: what was begun goes on at the next start. Cancel safe.
    pub async fn run(self) {
        while let Err(error) = self.load_all().await {
            tracing::warn!(%error, "subscriptions are looked at later");
            let _ = timeout(AGAIN, pending::<()>()).await;
        }
        let (mut jobs, mut sweeps) = (JoinSet::new(), interval(REST));
        loop {
            self.settle_late(&mut jobs);
            self.take_moved();
            while let Some((busy, names)) = self.next() {
                jobs.spawn(busy.work(names));
            }
            let rest = self.rest();
            tokio::select! {
                () = self.0.news.notified() => {}
                () = self.catalog().moved().news() => {}
                Some(_) = jobs.join_next() => {}
                _ = sweeps.tick() => self.leave_deleted(),
                _ = timeout(rest, pending::<()>()) => {}
            }
        }
    }

    /// Holds all subscriptions that are stored, each to be looked at.
    pub(in crate::broker) async fn load_all(&self) -> Result<(), Error> {
        let wakes = self.clone();
        self.catalog().changes().apart(move || wakes.load_each()).await
    }

    fn load_each(&self) -> Result<(), Error> {
        let mut after = None;
        loop {
            let rows = self.0.broker.log().scan(documents::WAKES, after.as_deref(), STEP)?;
            for (key, stored) in &rows {
                let of = documents::of_wake(key);
                let (tenant, id) = of.ok_or_else(|| Error::defect("the key of a subscription has no id"))?;
                let doc: WakeDoc = documents::decode(key, stored)?;
                let sub = match self.sub(tenant, id)? {
                    Some(sub) => sub,
                    None => self.register((tenant, id.into()), &doc)?,
                };
                self.push(&sub, 0, Names::all());
            }
            match rows.last() {
                Some((last, _)) if rows.len() == STEP => after = Some(last.clone()),
                Some(_) | None => return Ok(()),
            }
            self.catalog().changes().go_on()?;
        }
    }

    /// Gives what has moved to the subscriptions that it is about.
    fn take_moved(&self) {
        let now = self.0.broker.log().now().0;
        for (tenant, names) in self.catalog().moved().take() {
            let subs: Vec<Arc<Sub>> =
                self.known().get(&tenant).into_iter().flat_map(|subs| subs.values().cloned()).collect();
            for sub in subs {
                let about = self.about(&sub, &names);
                if !about.is_empty() {
                    self.schedule().push(&sub.key, now, about);
                }
            }
        }
    }

    /// Which of the streams a subscription is about, or may be.
    fn about(&self, sub: &Sub, names: &Names) -> Names {
        let mut about = Names::default();
        if names.all {
            return Names::all();
        }
        for name in &names.some {
            let link = || self.0.broker.log().get(&documents::wake_link(sub.key.0, &sub.key.1, name));
            // What cannot be read is looked at once more.
            if sub.matches(name) || link().is_ok_and(|link| link.is_some()) || sub.told_in.as_ref() == Some(name) {
                about.insert(name);
            }
        }
        about
    }

    fn next(&self) -> Option<(Busy, Names)> {
        let (key, names) = self.schedule().next(self.0.broker.log().now().0)?;
        Some((Busy { wakes: self.clone(), key }, names))
    }

    /// Until when nothing is due.
    fn rest(&self) -> Duration {
        let next_at = self.schedule().next_at();
        let now = self.0.broker.log().now().0;
        next_at.map_or(REST, |at| Duration::from_millis(at.saturating_sub(now))).min(REST)
    }

    /// Lets tenants go that were deleted.
    fn leave_deleted(&self) {
        let tenants: Vec<_> = self.known().keys().copied().collect();
        for tenant in tenants.into_iter().filter(|tenant| self.0.auth.tenant_by_id(*tenant).is_none()) {
            let ids: Vec<Arc<str>> =
                self.known().get(&tenant).into_iter().flat_map(|subs| subs.keys().cloned()).collect();
            ids.into_iter().for_each(|id| self.forget(&(tenant, id)));
        }
    }

    /// Has streams noted whose append had no clear outcome, once that is settled.
    fn settle_late(&self, jobs: &mut JoinSet<()>) {
        let late = self.catalog().moved().take_late();
        if late.is_empty() {
            return;
        }
        let wakes = self.clone();
        jobs.spawn(async move {
            // When the log ends, the next start looks at all.
            while let Err(Error::Unknown(_) | Error::Unavailable(_) | Error::Busy(_)) = wakes.settle().await {
                let _ = timeout(AGAIN, pending::<()>()).await;
            }
            for (tenant, name) in late {
                wakes.catalog().moved().note(tenant, &name);
            }
        });
    }

    /// Looks at streams that have moved: those that match are linked, and the subscription wakes if something is new.
    async fn look(&self, sub: &Arc<Sub>, names: &Names) -> Result<(), Error> {
        let looked = self.change(sub, Which::Some(names), |scene| {
            let pending = scene.pending();
            turn::begin(scene.doc, scene.moment, pending.as_deref());
            Ok(())
        });
        below(looked.await)
    }

    /// Does all that is due now, and what becomes due by that.
    #[cfg(test)]
    pub(in crate::broker) async fn work_all(&self) {
        loop {
            self.take_moved();
            let jobs: Vec<_> = std::iter::from_fn(|| self.next()).map(|(busy, names)| busy.work(names)).collect();
            if jobs.is_empty() {
                return;
            }
            join_all(jobs).await;
        }
    }
}

impl Busy {
    async fn look(&self, sub: &Arc<Sub>, names: &Names) -> Result<(), Error> {
        let _one_of_a_few = self.wakes.0.looks.acquire().await.map_err(|_| Error::defect("looks have ended"))?;
        self.wakes.look(sub, names).await
    }

    async fn work(self, names: Names) {
        let Ok(Some(sub)) = self.wakes.sub(self.key.0, &self.key.1) else { return };
        let looked = if names.is_empty() { Ok(()) } else { self.look(&sub, &names).await };
        let worked = match looked {
            Ok(()) => self.wakes.advance(&sub).await,
            Err(error) => Err(error),
        };
        if let Err(error) = worked {
            let (tenant, id) = (self.key.0.0, &*self.key.1);
            tracing::warn!(%tenant, id, %error, "a subscription is looked at later");
            self.wakes.again(&sub, names);
        }
    }
}
