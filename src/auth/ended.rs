//! Why a caller that was let in may not go on: its credential has ended, or its tenant is suspended.

use super::Auth;
use super::caller::{Caller, Denied};

impl Auth {
    /// Why `caller` may not go on, if it may not.
    #[must_use]
    pub fn ended(&self, caller: &Caller) -> Option<Denied> {
        if self.is_live(caller) {
            return None;
        }
        let ended = || Denied::Unauthenticated("the credential has ended".into());
        Some(caller.check_suspended().err().unwrap_or_else(ended))
    }
}

impl Caller {
    /// Checks that the tenant is not suspended; the root key goes on inside one that is. For what has waited since the
    /// credential was checked; it costs a few nanoseconds.
    ///
    /// # Errors
    /// `Suspended`.
    pub fn check_suspended(&self) -> Result<(), Denied> {
        match self.tenant() {
            Some(tenant) if tenant.is_suspended() && self.operator().is_err() => {
                Err(Denied::Suspended(format!("the tenant {} is suspended", tenant.name())))
            }
            Some(_) | None => Ok(()),
        }
    }
}
