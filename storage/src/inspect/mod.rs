//! Looking at a bucket without taking part: what is in it, whether it is whole, and a copy of it as of a time.
//!
//! There is no session here, no claim and no probe, and every request goes through a store that refuses to be changed:
//! a live bucket is not touched. What moves meanwhile is no fault: the listing at the beginning is the bound of what is
//! looked at.

mod claims;
mod listing;
mod overview;
mod read_only;
mod restore;
mod scratch;
mod state;
mod verify;

use crate::error::{Error, Kind, Result};
use crate::ids::ClusterId;
pub use crate::inspect::listing::Usage;
pub use crate::inspect::overview::{CheckpointView, ClaimView, Overview, SessionMeta, SessionStatus, SessionView};
pub use crate::inspect::restore::{Copied, CopyEvent, CopyOptions, restore};
pub use crate::inspect::scratch::Scratch;
pub use crate::inspect::state::State;
pub use crate::inspect::verify::{Event, Finding, Severity, Totals, VerifyOptions, verify};
use crate::layout;
use crate::open::parse_cluster;
use crate::slot::read_object;
use crate::store::ObjectStores;

use self::claims::Claims;
use self::listing::Listing;
use self::state::Identity;

/// How often a look is begun anew when objects vanish under it.
const LOOKS_MAX: usize = 3;

/// A bucket that is looked at.
#[derive(Clone, Debug)]
pub struct Bucket {
    stores: ObjectStores,
    identity: Identity,
    in_flight: usize,
}

impl Bucket {
    /// Finds the cluster in a bucket. At most `in_flight` requests are under way at a time.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Invalid` when this build cannot read it, `Unavailable` when the store cannot be
    /// read.
    pub async fn open(stores: &ObjectStores, in_flight: usize) -> Result<Self> {
        let stores = read_only::read_only(stores);
        let object = read_object(&stores, &layout::cluster()).await?;
        let object = object.ok_or_else(|| no_cluster(&stores))?;
        let (cluster, shards) = parse_cluster(&object)?;
        Ok(Self { stores, identity: Identity { cluster, shards }, in_flight })
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> ClusterId {
        self.identity.cluster
    }

    /// Sessions, claims, and objects by purpose.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read, `Corrupt` when what is needed is broken: verify tells what.
    pub async fn overview(&self) -> Result<Overview> {
        let Identity { cluster, shards } = self.identity;
        let (listing, claims) = self.look().await?;
        overview::read(&self.stores, (cluster, shards), (&listing, &claims), self.in_flight).await
    }

    /// The state as a start would restore it now.
    ///
    /// # Errors
    /// `Unavailable` when the store cannot be read, `Corrupt` when what is needed is missing or broken, `Invalid` when the
    /// scratch directory cannot be used.
    pub async fn state(&self, scratch: &Scratch) -> Result<State> {
        let mut looks = 0;
        loop {
            let (listing, claims) = self.look().await?;
            looks += 1;
            match state::restore(&self.stores, self.identity, (&listing, &claims), scratch).await {
                // What was listed may be deleted by its owner meanwhile; then a newer listing does without it.
                Err(error) if error.kind() == Kind::Corrupt && looks < LOOKS_MAX => {}
                restored => return restored,
            }
        }
    }

    async fn look(&self) -> Result<(Listing, Claims)> {
        let listing = Listing::read(&self.stores).await?;
        let claims = Claims::read(&self.stores, &listing, self.in_flight).await?;
        Ok((listing, claims))
    }
}

fn no_cluster(stores: &ObjectStores) -> Error {
    Error::new(Kind::NotFound, format!("store {} holds no cluster", stores.url))
}
