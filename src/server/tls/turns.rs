//! Who may go on with a handshake: so many of a node, and so many of one client.
//!
//! A turn of the client is taken for the whole handshake, one of the node only for what is computed after the client's first
//! message is there. So who is slow holds up nobody but himself.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use plinth_api::limits::{HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX};
use tokio::sync::Semaphore;

/// The turns of a node. One of them is waited for in the order of asking.
pub(in crate::server) struct Turns {
    node: Arc<Semaphore>,
    clients: Mutex<HashMap<IpAddr, Weak<Semaphore>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { node: Arc::new(Semaphore::new(HANDSHAKES_MAX)), clients: Mutex::default() }
    }
}

impl Turns {
    /// Those of the node.
    pub(in crate::server) fn of_node(&self) -> Arc<Semaphore> {
        Arc::clone(&self.node)
    }

    /// Those of one client; forgotten when it has no handshake under way.
    pub(in crate::server) fn of_client(&self, address: IpAddr) -> Arc<Semaphore> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        if clients.len() == clients.capacity() {
            clients.retain(|_, turns| turns.strong_count() > 0);
        }
        let made = Arc::new(Semaphore::new(HANDSHAKES_PER_ADDRESS_MAX));
        clients.insert(address, Arc::downgrade(&made));
        made
    }
}
