//! What one address may do: how many connections it holds, how many of them are still logging in,
//! how often it may fail to.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::{Error, ErrorKind};
use crate::names::Timestamp;

/// Wrong passwords of one address before it has to wait.
const FAILURES_FREE: u32 = 5;
/// How long it waits then before each further attempt is answered.
const FAILURE_DELAY: Duration = Duration::from_secs(1);
/// When failures are forgotten.
const FAILURES_KEPT_SECONDS: i64 = 60;
/// Addresses that are remembered for nothing but their failures.
const REMEMBERED_MAX: usize = 10_000;

#[derive(Debug, Default)]
struct Address {
    open: usize,
    logging_in: usize,
    failures: u32,
    failed_at: Option<Timestamp>,
}

/// Every address with a connection, or with a failed login a moment ago.
#[derive(Debug)]
pub(super) struct Addresses {
    known: Mutex<HashMap<IpAddr, Address>>,
    open_max: usize,
    logging_in_max: usize,
}

/// A connection's place in the count of its address.
#[derive(Debug)]
pub(super) struct AddressPermit {
    addresses: Arc<Addresses>,
    addr: IpAddr,
    logging_in: bool,
}

impl Addresses {
    pub fn new(open_max: usize, logging_in_max: usize) -> Self {
        Self {
            known: Mutex::default(),
            open_max,
            logging_in_max,
        }
    }

    /// A place for one more connection of an address, which begins by logging in.
    pub fn enter(self: &Arc<Self>, addr: IpAddr) -> Result<AddressPermit, Error> {
        let mut known = self.known.lock();
        let address = known.entry(addr).or_default();
        if address.open >= self.open_max || address.logging_in >= self.logging_in_max {
            return Err(Error::new(
                ErrorKind::TooManyConnections,
                format!("too many connections from {addr}"),
            )
            .hint("Close some, or raise connections_per_address_max or logins_per_address_max."));
        }
        address.open += 1;
        address.logging_in += 1;
        Ok(AddressPermit {
            addresses: self.clone(),
            addr,
            logging_in: true,
        })
    }

    /// Notes a wrong password; answers how long the next answer to this address should take.
    pub fn failed(&self, addr: IpAddr, now: Timestamp) -> Option<Duration> {
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED_MAX {
            known.retain(|_, a| a.open > 0);
        }
        let address = known.entry(addr).or_default();
        let is_old = address
            .failed_at
            .is_none_or(|at| now.micros() - at.micros() > FAILURES_KEPT_SECONDS * 1_000_000);
        address.failures = if is_old { 1 } else { address.failures + 1 };
        address.failed_at = Some(now);
        (address.failures > FAILURES_FREE).then_some(FAILURE_DELAY)
    }
}

impl AddressPermit {
    /// The client has proved who it is.
    pub fn logged_in(&mut self) {
        if std::mem::take(&mut self.logging_in)
            && let Some(address) = self.addresses.known.lock().get_mut(&self.addr)
        {
            address.logging_in -= 1;
            address.failures = 0;
        }
    }
}

impl Drop for AddressPermit {
    fn drop(&mut self) {
        let mut known = self.addresses.known.lock();
        let Some(address) = known.get_mut(&self.addr) else {
            return;
        };
        address.open -= 1;
        address.logging_in -= usize::from(self.logging_in);
        if address.open == 0 && address.failures == 0 {
            known.remove(&self.addr);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_a_connection_limit() {
        let addresses = Arc::new(Addresses::new(3, 2));
        let addr: IpAddr = [127, 0, 0, 1].into();
        let mut one = addresses.enter(addr).expect("a place");
        let _two = addresses.enter(addr).expect("a place");
        assert!(addresses.enter(addr).is_err(), "two are logging in");
        one.logged_in();
        let three = addresses.enter(addr).expect("a place");
        assert!(addresses.enter(addr).is_err(), "three are open");
        assert!(
            addresses.enter([127, 0, 0, 2].into()).is_ok(),
            "another address"
        );
        drop(three);
        assert!(addresses.enter(addr).is_ok());
    }

    #[test]
    fn wrong_passwords_slow_an_address_down_for_a_while() {
        let addresses = Addresses::new(1, 1);
        let addr: IpAddr = [127, 0, 0, 1].into();
        let at = |seconds: i64| Timestamp(seconds * 1000);
        let delays: Vec<_> = (0..7)
            .map(|i| addresses.failed(addr, at(i)).is_some())
            .collect();
        assert_eq!(delays, [false, false, false, false, false, true, true]);
        assert_eq!(addresses.failed([127, 0, 0, 2].into(), at(7)), None);
        assert_eq!(addresses.failed(addr, at(100)), None);
    }
}
