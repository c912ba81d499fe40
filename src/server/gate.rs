//! How many connections may be open: of the node and of each client address.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use super::ServerLimits;
use crate::telemetry::Refusal;

/// Counts open connections against their caps.
#[derive(Debug)]
pub(super) struct Gates {
    connections_max: usize,
    per_address_max: usize,
    open: Arc<Mutex<OpenConnections>>,
}

#[derive(Debug, Default)]
struct OpenConnections {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One open connection, counted until it is dropped; held by its socket.
#[derive(Debug)]
pub(super) struct Pass {
    address: IpAddr,
    open: Arc<Mutex<OpenConnections>>,
}

impl Gates {
    pub(super) fn new(limits: &ServerLimits) -> Self {
        Self {
            connections_max: limits.connections_max,
            per_address_max: limits.connections_per_address_max,
            open: Arc::default(),
        }
    }

    /// Counts one more connection, or says which cap is reached.
    pub(super) fn enter(&self, address: IpAddr) -> Result<Pass, Refusal> {
        let address = client_of(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.all >= self.connections_max {
            return Err(Refusal::Node);
        }
        if open.by_address.get(&address).copied().unwrap_or(0) >= self.per_address_max {
            return Err(Refusal::Address);
        }
        open.all += 1;
        *open.by_address.entry(address).or_default() += 1;
        Ok(Pass { address, open: Arc::clone(&self.open) })
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Entry::Occupied(mut count) = open.by_address.entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// The client behind an address: of IPv6 everybody gets at least 2^64 addresses, and counts once for them.
pub(super) fn client_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_over_a_cap_is_refused_until_another_one_ends() {
        let limits = ServerLimits { connections_max: 3, connections_per_address_max: 2, ..ServerLimits::default() };
        let gates = Gates::new(&limits);
        let (one, two) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let first = gates.enter(one).unwrap();
        let _second = gates.enter(one).unwrap();
        assert_eq!(gates.enter(one).unwrap_err(), Refusal::Address);
        let _third = gates.enter(two).unwrap();
        assert_eq!(gates.enter(two).unwrap_err(), Refusal::Node);
        drop(first);
        assert!(gates.enter(one).is_ok());
    }

    #[test]
    fn the_mapped_form_of_an_address_is_the_same_client() {
        let limits = ServerLimits { connections_per_address_max: 1, ..ServerLimits::default() };
        let gates = Gates::new(&limits);
        let _open = gates.enter("10.0.0.1".parse().unwrap()).unwrap();
        assert_eq!(gates.enter("::ffff:10.0.0.1".parse().unwrap()).unwrap_err(), Refusal::Address);
    }

    // Fails if each address counted for itself.
    #[test]
    fn the_addresses_of_one_network_of_ipv6_are_one_client() {
        let limits = ServerLimits { connections_per_address_max: 1, ..ServerLimits::default() };
        let gates = Gates::new(&limits);
        let _open = gates.enter("2001:db8:1:2::1".parse().unwrap()).unwrap();
        assert_eq!(gates.enter("2001:db8:1:2:ffff::9".parse().unwrap()).unwrap_err(), Refusal::Address);
        assert!(gates.enter("2001:db8:1:3::1".parse().unwrap()).is_ok());
    }
}
