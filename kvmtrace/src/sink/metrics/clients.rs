//! Who is served: so many at once, and so many of one address. A newcomer takes the place of the client of its own address (else of
//! the address that has most) that has been silent the longest; one that has asked is never sent away. So whoever opens
//! connections and says nothing keeps nobody else out, not even on the same machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::task::AbortHandle;

/// Clients served at once.
pub(super) const CLIENTS: usize = 64;
/// Of one address: a Prometheus has one connection, two ask side by side.
pub(super) const OF_ONE_ADDRESS: usize = 8;

/// Set by a client's task when its request is whole.
pub(super) type Asked = Arc<AtomicBool>;

/// Those that are served now.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// Of each address in the order of their coming.
    of: BTreeMap<IpAddr, Vec<(AbortHandle, Asked)>>,
}

impl Clients {
    /// Makes room for a client of this address; false where there is none.
    pub(super) fn admit(&mut self, address: IpAddr) -> bool {
        self.of.retain(|_, clients| {
            clients.retain(|(task, _)| !task.is_finished());
            !clients.is_empty()
        });
        let own = self.of.get_mut(&network(address));
        if own.as_ref().is_some_and(|own| own.len() >= OF_ONE_ADDRESS) {
            return own.is_some_and(end_silent);
        }
        if self.of.values().map(Vec::len).sum::<usize>() < CLIENTS {
            return true;
        }
        self.of.values_mut().max_by_key(|clients| clients.len()).is_some_and(end_silent)
    }

    /// It is served by this task.
    pub(super) fn add(&mut self, address: IpAddr, task: AbortHandle, asked: Asked) {
        self.of.entry(network(address)).or_default().push((task, asked));
    }
}

/// Ends the first that has asked nothing yet.
fn end_silent(clients: &mut Vec<(AbortHandle, Asked)>) -> bool {
    let silent = clients.iter().position(|(_, asked)| !asked.load(Ordering::Relaxed));
    let Some(at) = silent else { return false };
    clients.remove(at).0.abort();
    true
}

/// A machine may have all addresses of a /64 (RFC 4291).
fn network(address: IpAddr) -> IpAddr {
    let address = address.to_canonical();
    let IpAddr::V6(v6) = address else { return address };
    IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client that waits for ever.
    fn add(clients: &mut Clients, address: IpAddr, asked: bool) -> AbortHandle {
        let task = tokio::spawn(std::future::pending::<()>()).abort_handle();
        clients.add(address, task.clone(), Arc::new(AtomicBool::new(asked)));
        task
    }

    fn v4(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[tokio::test]
    async fn a_silent_client_makes_room_for_the_next_of_its_address() {
        let mut clients = Clients::default();
        let busy = add(&mut clients, v4(1), true);
        let silent: Vec<AbortHandle> = (1..OF_ONE_ADDRESS).map(|_| add(&mut clients, v4(1), false)).collect();
        assert!(clients.admit(v4(1)));
        tokio::task::yield_now().await;
        let ended: Vec<bool> = silent.iter().map(AbortHandle::is_finished).collect();
        assert_eq!(ended.iter().filter(|ended| **ended).count(), 1);
        assert!(ended[0] && !busy.is_finished(), "the oldest that is silent goes");
    }

    #[tokio::test]
    async fn those_that_have_asked_stay() {
        let mut clients = Clients::default();
        for _ in 0..OF_ONE_ADDRESS {
            add(&mut clients, v4(1), true);
        }
        assert!(!clients.admit(v4(1)));
        assert!(clients.admit(v4(2)), "another address has room");
    }

    #[tokio::test]
    async fn when_all_is_full_the_address_with_most_gives_way() {
        let mut clients = Clients::default();
        for address in 1..=(CLIENTS / OF_ONE_ADDRESS) as u8 {
            for _ in 0..OF_ONE_ADDRESS {
                add(&mut clients, v4(address), false);
            }
        }
        assert!(clients.admit(v4(200)));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(network(address("2001:db8::1")), network(address("2001:db8::2:3:4")));
        assert_ne!(network(address("2001:db8::1")), network(address("2001:db8:0:1::1")));
        assert_eq!(network(address("::ffff:192.0.2.1")), v4(1));
    }
}
