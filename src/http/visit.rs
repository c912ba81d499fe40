//! One request from its arrival to its answer: the connection that it came on, and on whose account it is.

use std::sync::OnceLock;

use crate::auth::{Account, Caller};
use crate::server::Connection;

/// See the module. Requests that pass the router carry theirs as an extension, in an `Arc`.
#[derive(Debug)]
pub struct Visit {
    connection: Connection,
    account: OnceLock<Account>,
}

impl Visit {
    /// A request on `connection` of which nothing else is known yet.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self { connection, account: OnceLock::new() }
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// On whose account the request is, once that is known; never for the root key alone, which is no tenant's.
    #[must_use]
    pub fn account(&self) -> Option<&Account> {
        self.account.get()
    }

    /// Puts the request on the account of `caller`, and its connection unless that is on one already.
    pub fn enter(&self, caller: &Caller) {
        let Some(account) = caller.account() else { return };
        account.meters().request();
        self.connection.keep(|| Box::new(account.meters().connection()));
        // A request has one caller; a second look at the credential finds the same.
        let (Ok(()) | Err(_)) = self.account.set(account.clone());
    }
}
