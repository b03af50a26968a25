//! `--trace-rules`: which rule dropped a packet, by nft's own trace.
//!
//! Tables of our own mark a few packets of each flow ([`table`]), the kernel tells every rule that a marked packet meets
//! ([`message`]), and of those that ended a packet ([`walks`]) each is told with its flow, as the counters are: when it
//! has changed. What iptables-legacy does is not in `nf_tables` and so not in its trace.

mod encode;
mod message;
mod table;
#[cfg(test)]
mod tests;
mod walks;

use crate::event::host::{Backend, Netfilter};
use crate::event::{Degraded, Event, EventKind, FlowKey, RuleDrop, RuleSite, Timestamp};
use crate::host::{self, netlink};
use crate::kernel::version::{TABLE_OWNER, Version};
use message::{Message, TRACE};
use netlink_sys::{AsyncSocket as _, SocketAddr, TokioSocket, protocols::NETLINK_NETFILTER};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use table::OwnTables;
pub(super) use table::Watched;
use walks::Walks;

/// `NFNLGRP_NFTRACE`
const GROUP: u32 = 9;
/// Messages that wait in the kernel: some ten thousand.
const BUFFER: usize = 8 << 20;
/// Messages taken before others get their turn.
const BATCH: usize = 4_096;
/// Longer than a trace message can be.
const LONGEST: usize = 1 << 14;
/// Rules by flow that are remembered.
const KEPT: usize = 8_192;

/// Rules can't be traced. The rest goes on without.
#[derive(Debug, thiserror::Error)]
pub(super) enum RuleTraceError {
    #[error("this kernel ({0}) would not remove kvmtrace's table if it were killed; that came with {TABLE_OWNER}")]
    TooOld(Version),
    #[error("nf_tables is not in this kernel or not loaded: there are no rules of nft or iptables-nft to trace")]
    Absent,
    #[error("listening to nft's trace: {0}")]
    Listen(#[source] io::Error),
    #[error("the kernel refuses kvmtrace's table: {0}")]
    Table(#[source] io::Error),
}

/// The tables, the listener, and what was heard.
pub(super) struct RuleTrace {
    tables: Option<OwnTables>,
    name: String,
    socket: TokioSocket,
    port: u32,
    buffer: Vec<u8>,
    walks: Walks,
    heard: BTreeMap<(FlowKey, RuleSite), Heard>,
    /// Those that are not told yet at all.
    new: Vec<(FlowKey, RuleSite)>,
    /// Drops that found no room in `heard`.
    overflowed: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    packets: u64,
    told: u64,
}

impl std::fmt::Debug for RuleTrace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RuleTrace").field("table", &self.name).finish_non_exhaustive()
    }
}

impl RuleTrace {
    /// Listens, then makes the tables; nothing is marked before [`Self::watch`].
    pub(super) fn start(kernel: Version) -> Result<Self, RuleTraceError> {
        if kernel < TABLE_OWNER {
            return Err(RuleTraceError::TooOld(kernel));
        }
        // Asking would load the module.
        if !host::nf_tables_is_present() {
            return Err(RuleTraceError::Absent);
        }
        let (socket, port) = listen().map_err(RuleTraceError::Listen)?;
        let tables = OwnTables::make().map_err(RuleTraceError::Table)?;
        Ok(Self {
            name: tables.name().to_owned(),
            tables: Some(tables),
            socket,
            port,
            buffer: Vec::with_capacity(LONGEST),
            walks: Walks::default(),
            heard: BTreeMap::new(),
            new: Vec::new(),
            overflowed: 0,
        })
    }

    /// Traces what comes in and goes out by these devices.
    pub(super) fn watch<'a>(&mut self, devices: impl Iterator<Item = Watched<'a>>) -> Result<(), RuleTraceError> {
        self.tables.as_mut().map_or(Ok(()), |tables| tables.watch(devices)).map_err(RuleTraceError::Table)
    }

    /// Waits for messages and takes them in. Cancel-safe: a message is taken in as soon as it is read.
    pub(super) async fn hear(&mut self) {
        self.buffer.clear();
        // An error is the socket's loss of a message, which the kernel counts.
        if poll_fn(|context| self.socket.poll_recv(context, &mut self.buffer)).await.is_ok() {
            self.take_buffer();
        }
        self.drain();
    }

    /// Takes in what is there; how many messages that were.
    pub(super) fn drain(&mut self) -> usize {
        for count in 0..BATCH {
            self.buffer.clear();
            if self.socket.socket_ref().recv(&mut self.buffer, 0).is_err() {
                return count;
            }
            self.take_buffer();
        }
        BATCH
    }

    fn take_buffer(&mut self) {
        let ended: Vec<_> = netlink::frames(&self.buffer)
            .filter(|(header, _)| header.kind == TRACE)
            .filter_map(|(_, body)| Message::read(body))
            // Our own rules are traced too.
            .filter(|message| message.table != self.name)
            .filter_map(|message| self.walks.take(message))
            .collect();
        for told in ended {
            self.remember(told);
        }
    }

    /// Takes the tables away, and takes in what they have still brought about.
    pub(super) fn end(&mut self) {
        self.tables = None;
        while self.drain() > 0 {}
    }

    /// Counts a packet. When there is no room, what has been told already makes some: its count begins anew if it comes
    /// back.
    fn remember(&mut self, key: (FlowKey, RuleSite)) {
        if let Some(heard) = self.heard.get_mut(&key) {
            heard.packets += 1;
            return;
        }
        if self.heard.len() >= KEPT {
            self.heard.retain(|_, heard| heard.told != heard.packets);
        }
        if self.heard.len() >= KEPT {
            self.overflowed += 1;
            return;
        }
        self.heard.insert(key.clone(), Heard { packets: 1, told: 0 });
        self.new.push(key);
    }

    /// Rules that were not heard of before with their flows: these are told at once, so that who is told of a drop knows
    /// its rule.
    pub(super) fn news(&mut self, now: Timestamp) -> Vec<Event> {
        let new = std::mem::take(&mut self.new);
        new.into_iter().filter_map(|key| Some(told(&key, self.heard.get_mut(&key)?, now))).collect()
    }

    /// What has changed since the last call.
    pub(super) fn changes(&mut self, now: Timestamp) -> Vec<Event> {
        self.new.clear();
        let changed = self.heard.iter_mut().filter(|(_, heard)| heard.told != heard.packets);
        changed.map(|(key, heard)| told(key, heard, now)).collect()
    }

    /// Messages that were lost.
    pub(super) fn lost(&self) -> u64 {
        let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap_or_default();
        self.overflowed + drops(&sockets, self.port)
    }
}

fn listen() -> io::Result<(TokioSocket, u32)> {
    let mut socket = TokioSocket::new(NETLINK_NETFILTER)?;
    let inner = socket.socket_mut();
    inner.bind(&SocketAddr::new(0, 0))?;
    // Without the privilege it is as large as net.core.rmem_max lets it be.
    if setsockopt(&*inner, RcvBufForce, &BUFFER).is_err() {
        inner.set_rx_buf_sz(BUFFER)?;
    }
    // What does not fit is counted in any case; with this the socket takes the next message as soon as there is room.
    inner.set_no_enobufs(true)?;
    inner.add_membership(GROUP)?;
    let mut address = SocketAddr::new(0, 0);
    inner.get_address(&mut address)?;
    Ok((socket, address.port_number()))
}

fn told((flow, rule): &(FlowKey, RuleSite), heard: &mut Heard, now: Timestamp) -> Event {
    heard.told = heard.packets;
    let drop = RuleDrop { flow: *flow, rule: rule.clone(), packets: heard.packets };
    Event { time: now, kind: EventKind::RuleDrop(drop) }
}

/// The socket's line in `/proc/net/netlink`: `sk Eth Pid Groups Rmem Wmem Dump Locks Drops Inode`.
fn drops(sockets: &str, port: u32) -> u64 {
    let (protocol, port) = (NETLINK_NETFILTER.to_string(), port.to_string());
    let fields = |line: &str| -> Option<u64> {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let own = fields.get(1) == Some(&protocol.as_str()) && fields.get(2) == Some(&port.as_str());
        own.then(|| fields.get(8)?.parse().ok())?
    };
    sockets.lines().find_map(fields).unwrap_or(0)
}

/// Tables that nft's trace does not see.
pub(super) fn unseen(netfilter: &Netfilter) -> Option<Degraded> {
    let mut tables: Vec<String> = netfilter
        .chains
        .iter()
        .filter(|chain| chain.backend == Backend::IptablesLegacy)
        .filter(|chain| !chain.rules.is_empty() || chain.policy.as_deref() == Some("drop"))
        .map(|chain| format!("{} {}", chain.family, chain.table))
        .collect();
    tables.sort_unstable();
    tables.dedup();
    (!tables.is_empty()).then(|| Degraded {
        what: "rule trace".to_owned(),
        why: format!(
            "nft's trace does not see the iptables-legacy tables ({}): their rules are told by their counters",
            tables.join(", ")
        ),
    })
}

/// Takes in the messages of nft's trace; never returns where rules are not traced.
pub(super) async fn hear(rules: Option<&mut RuleTrace>) {
    match rules {
        Some(rules) => rules.hear().await,
        None => std::future::pending().await,
    }
}

pub(super) fn untraced(error: &RuleTraceError) -> Degraded {
    Degraded { what: "rule trace".to_owned(), why: error.to_string() }
}
