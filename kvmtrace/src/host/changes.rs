//! Told when the host's network or its guests change.
//!
//! The kernel announces devices, addresses, routes and neighbours. A guest's start and end are among them: a tap appears
//! or goes, or its carrier does when a process opens or closes it. But the process that opens a tap is often not yet the
//! hypervisor that will have it, so a look is due again a little later; and a macvtap says nothing when its process
//! ends, so the guests' processes are watched.

use super::HostError;
use crate::event::HostState;
use netlink_sys::{AsyncSocket as _, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use nix::libc;
use std::future::poll_fn;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// `RTNLGRP_*` of links, neighbours, addresses and routes.
const GROUPS: [u32; 6] = [1, 3, 5, 7, 9, 11];
/// One change brings others: wait until they are all there.
const SETTLE: Duration = Duration::from_millis(200);
/// Neighbours and forwarding databases change all the time, and little hangs on them.
const NEIGHBOURS_SETTLE: Duration = Duration::from_secs(5);
/// After a device changed: when the hypervisor has surely taken over from its manager.
const SECOND_LOOKS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// A look that took longer is followed by a rest: a router with a full table changes all the time, and looking at
/// it takes long.
const QUICK: Duration = Duration::from_millis(200);
/// The rest, in times of what it took longer.
const REST: u32 = 20;
/// But a look is never put off for longer.
const LONGEST_REST: Duration = Duration::from_secs(10);
/// How often the guests' processes are looked for.
const PROCESSES: Duration = Duration::from_secs(1);

/// A listener of the kernel's announcements.
pub struct Changes {
    socket: TokioSocket,
    /// When to tell of what was heard so far.
    due: Vec<Instant>,
    /// Nothing is told before.
    rest_until: Instant,
    /// Processes of guests.
    processes: Vec<u32>,
    next_process_check: Instant,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("due", &self.due).field("processes", &self.processes).finish_non_exhaustive()
    }
}

/// What an announcement asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Heard {
    Device,
    Network,
    Neighbour,
}

impl Heard {
    fn delays(self) -> Vec<Duration> {
        match self {
            Self::Device => [SETTLE].into_iter().chain(SECOND_LOOKS).collect(),
            Self::Network => vec![SETTLE],
            Self::Neighbour => vec![NEIGHBOURS_SETTLE],
        }
    }
}

impl Changes {
    /// Listens from now on, in the network namespace of the calling thread.
    pub fn open() -> Result<Self, HostError> {
        let open = || {
            let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
            let inner = socket.socket_mut();
            inner.bind(&SocketAddr::new(0, 0))?;
            inner.set_rx_buf_sz(1 << 20)?;
            for group in GROUPS {
                inner.add_membership(group)?;
            }
            Ok(socket)
        };
        let socket = open().map_err(HostError::Open)?;
        let now = Instant::now();
        Ok(Self {
            socket,
            due: Vec::new(),
            rest_until: now,
            processes: Vec::new(),
            next_process_check: now + PROCESSES,
        })
    }

    /// Takes note of the guests in the last snapshot, so that their end is told even if no device changes.
    pub fn watch(&mut self, state: &HostState) {
        self.processes = state.guests.iter().filter_map(|guest| guest.pid).collect();
    }

    /// Takes note of how long the last look took.
    pub fn rest_after(&mut self, look: Duration) {
        self.rest_until = Instant::now() + look.saturating_sub(QUICK).saturating_mul(REST).min(LONGEST_REST);
    }

    /// Returns when something has changed and has settled. Cancel-safe: what was heard is told by the next call, and no
    /// later for having been cancelled.
    pub async fn changed(&mut self) -> Result<(), HostError> {
        loop {
            let due = self.due.iter().min().map(|due| *due.max(&self.rest_until));
            let next = due.unwrap_or(self.next_process_check).min(self.next_process_check);
            tokio::select! {
                heard = hear(&self.socket) => {
                    let now = Instant::now();
                    for delay in heard.into_iter().flat_map(Heard::delays) {
                        self.schedule(now + delay, delay);
                    }
                }
                () = sleep_until(next) => {
                    let now = Instant::now();
                    if now >= self.next_process_check {
                        self.next_process_check = now + PROCESSES;
                        if self.forget_ended() {
                            self.schedule(now + SETTLE, SETTLE);
                        }
                    }
                    if now >= self.rest_until && self.due.iter().any(|due| *due <= now) {
                        self.due.retain(|due| *due > now);
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sets a time to tell at, unless one is set within `delay` of it: a steady stream of changes must neither put the
    /// telling off for ever nor make it more frequent.
    fn schedule(&mut self, at: Instant, delay: Duration) {
        if !self.due.iter().any(|due| *due <= at && at - *due < delay) {
            self.due.push(at);
        }
    }

    /// Whether a process that was watched is no more.
    fn forget_ended(&mut self) -> bool {
        let before = self.processes.len();
        self.processes.retain(|pid| Path::new("/proc").join(pid.to_string()).exists());
        self.processes.len() < before
    }
}

/// Waits for announcements and empties the socket. What one says in detail does not matter: that it came does.
async fn hear(socket: &TokioSocket) -> Vec<Heard> {
    let mut buffer = Vec::with_capacity(1 << 16);
    let received = poll_fn(|context| socket.poll_recv(context, &mut buffer)).await;
    let mut heard = meaning_of(received.map(|()| buffer));
    let socket: &Socket = socket.socket_ref();
    loop {
        match socket.recv_from_full().map(|(datagram, _)| datagram) {
            Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => break,
            datagram => heard.extend(meaning_of(datagram)),
        }
    }
    heard.sort_unstable();
    heard.dedup();
    heard
}

fn meaning_of(datagram: io::Result<Vec<u8>>) -> Vec<Heard> {
    match datagram {
        Ok(datagram) => super::netlink::kinds(&datagram).filter_map(meaning).collect(),
        // The socket was overrun: some were missed, of whatever kind.
        Err(_) => vec![Heard::Device],
    }
}

fn meaning(kind: u16) -> Option<Heard> {
    match kind {
        libc::RTM_NEWLINK | libc::RTM_DELLINK => Some(Heard::Device),
        libc::RTM_NEWADDR | libc::RTM_DELADDR | libc::RTM_NEWROUTE | libc::RTM_DELROUTE => Some(Heard::Network),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => Some(Heard::Neighbour),
        _ => None,
    }
}
