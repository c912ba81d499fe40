//! A change whose outcome is not known may be stored after its answer; what is held in memory must follow it then.
//!
//! Changes are stored in their order. So a later one that is stored, whatever it says, settles all before it.

use std::time::Duration;

use bytes::Bytes;
use plinth_storage::Kind;
use plinth_storage::log::{Change, DocOp};
use tokio::time::{MissedTickBehavior, interval};

use super::Auth;

/// A document that never is: to delete it changes nothing.
const NOTHING: &[u8] = b"settled";
/// While the store is away, it is tried again so often.
const AGAIN: Duration = Duration::from_secs(1);

/// A change of nothing; when it is stored, all before it are.
pub(super) fn nothing() -> Change {
    Change { docs: vec![DocOp::Delete(Bytes::from_static(NOTHING))], ..Change::default() }
}

impl Auth {
    /// Commits `change`, and lets memory `follow` it: at once, and once more when an unknown outcome is settled. The second
    /// one nobody waits for.
    ///
    /// # Errors
    /// Those of the log.
    pub(super) async fn commit_followed(
        &self,
        change: Change,
        mut follow: impl FnMut(&Self) + Send + 'static,
    ) -> plinth_storage::Result<()> {
        let committed = self.0.log.commit(change).await;
        follow(self);
        if committed.as_ref().is_err_and(|error| error.kind() == Kind::Unknown) {
            let auth = self.clone();
            self.0.changes.start(async move {
                let closing = auth.0.closing.clone();
                // When the node ends, its memory does.
                if closing.run_until_cancelled(auth.settle()).await.is_some() {
                    follow(&auth);
                }
            });
        }
        committed
    }

    async fn settle(&self) {
        let mut again = interval(AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            again.tick().await;
            let settled = self.0.log.commit(nothing()).await;
            let open = [Kind::Unknown, Kind::Unavailable, Kind::Busy];
            if !settled.is_err_and(|error| open.contains(&error.kind())) {
                return;
            }
        }
    }
}
