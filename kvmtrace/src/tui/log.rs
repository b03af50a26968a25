//! The newest events, in a form that can be listed and opened.

use super::turns::Turn;
use crate::event::{
    DropSite, Event, EventKind, FlowKey, HostState, IfIndex, Loss, PacketCause, PacketRecord, Timestamp,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Events kept.
const LENGTH: usize = 2_000;
/// Beginnings and ends of incidents kept.
const TURNS: usize = 1_000;

/// What kind of event a [`LogEntry`] tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogKind {
    /// The kernel dropped a packet.
    Drop,
    /// An ICMP error.
    IcmpError,
    /// A flow's source MAC address changed.
    MacChanged,
    /// A flow's first packet at a place.
    First,
    /// A packet like any other.
    Packet,
    /// An incident begins or ends.
    Incident,
    /// The host's network changed.
    Host,
    /// Something could not be told.
    Loss,
    /// A part of the trace is missing.
    Degraded,
    /// The trace began or ended.
    Trace,
}

impl LogKind {
    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::IcmpError => "icmp-err",
            Self::MacChanged => "new-mac",
            Self::First => "first",
            Self::Packet => "packet",
            Self::Incident => "incident",
            Self::Host => "host",
            Self::Loss => "lost",
            Self::Degraded => "degraded",
            Self::Trace => "trace",
        }
    }
}

/// One line of the event screen.
#[derive(Clone, Debug, PartialEq)]
pub struct LogEntry {
    /// Rises with every entry.
    pub serial: u64,
    /// When.
    pub time: Timestamp,
    /// What kind.
    pub kind: LogKind,
    /// The guest that it concerns, if one.
    pub guest: Option<String>,
    /// The device, empty when there is none.
    pub device: String,
    /// What happened, or to which flow.
    pub text: String,
    /// Why a packet died, and where in the kernel; empty for all else.
    pub why: String,
    /// The packet, if there is one.
    pub packet: Option<Box<PacketRecord>>,
    /// What a filter searches, in lower case.
    pub search: String,
}

impl LogEntry {
    /// One that concerns no device, yet without a number.
    fn new(time: Timestamp, kind: LogKind, text: String) -> Self {
        Self {
            serial: 0,
            time,
            kind,
            guest: None,
            device: String::new(),
            text,
            why: String::new(),
            packet: None,
            search: String::new(),
        }
    }

    /// All that it tells, in a line: why before what, since that is what one looks for.
    pub(super) fn line(&self) -> String {
        if self.why.is_empty() { self.text.clone() } else { format!("{}  {}", self.why, self.text) }
    }
}

/// A ring of the newest events.
#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Arc<LogEntry>>,
    /// The newest of those that tell of incidents, which outlive all others.
    turns: VecDeque<Arc<LogEntry>>,
    serial: u64,
    host: Option<Arc<HostState>>,
    loss: Loss,
    /// Whose the flows are, with the entry that told it; forgotten with that entry. A packet that dies behind the bridge
    /// or in the firewall bears no guest's device any more.
    owners: HashMap<FlowKey, (u64, String)>,
}

impl Log {
    /// Takes an event in, if it belongs on the screen.
    pub fn push(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Packet(packet) => self.packet(event.time, packet),
            EventKind::Host(host) => {
                if let Some(text) = self.host.as_deref().and_then(|before| change(before, host)) {
                    self.add(LogEntry::new(event.time, LogKind::Host, text));
                }
                self.host = Some(host.clone());
            }
            EventKind::Loss(loss) => {
                if *loss != self.loss {
                    let mut text = format!(
                        "{} records, {} flows evicted, {} packets found a map full",
                        loss.ring_events, loss.flows_evicted, loss.map_full
                    );
                    if loss.rule_messages > 0 {
                        text = format!("{text}, {} messages of nft's trace", loss.rule_messages);
                    }
                    self.add(LogEntry::new(event.time, LogKind::Loss, text));
                }
                self.loss = *loss;
            }
            EventKind::Degraded(degraded) => {
                let text = format!("{}: {}", degraded.what, degraded.why);
                self.add(LogEntry::new(event.time, LogKind::Degraded, text));
            }
            EventKind::Started(_) => {
                self.add(LogEntry::new(event.time, LogKind::Trace, "tracing began".to_owned()));
            }
            EventKind::Ended => {
                self.add(LogEntry::new(event.time, LogKind::Trace, "tracing ended".to_owned()));
            }
            EventKind::Command(end) => {
                let text = format!("the traced command ended with status {}", end.status);
                self.add(LogEntry::new(event.time, LogKind::Trace, text));
            }
            EventKind::Flow(_) | EventKind::Drop(_) | EventKind::RuleDrop(_) | EventKind::Unlisted(_) => {}
        }
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> Vec<Arc<LogEntry>> {
        self.entries.iter().cloned().collect()
    }

    /// Those that tell of incidents, oldest first.
    pub(super) fn turns(&self) -> Vec<Arc<LogEntry>> {
        self.turns.iter().cloned().collect()
    }

    /// An incident begins or ends.
    pub(super) fn turn(&mut self, time: Timestamp, turn: Turn) {
        let Turn { guest, device, text, .. } = turn;
        self.add(LogEntry { guest, device, ..LogEntry::new(time, LogKind::Incident, text) });
        self.turns.extend(self.entries.back().cloned());
        if self.turns.len() > TURNS {
            self.turns.pop_front();
        }
    }

    fn packet(&mut self, time: Timestamp, packet: &PacketRecord) {
        let (kind, device, why) = match &packet.cause {
            PacketCause::Dropped { site, .. } => (LogKind::Drop, site.device, site_text(site)),
            PacketCause::First => (LogKind::First, packet.place.map(|place| place.device), String::new()),
            PacketCause::IcmpError => (LogKind::IcmpError, packet.place.map(|place| place.device), String::new()),
            PacketCause::MacChanged => (LogKind::MacChanged, packet.place.map(|place| place.device), String::new()),
            PacketCause::Wanted => (LogKind::Packet, packet.place.map(|place| place.device), String::new()),
        };
        let host = self.host.as_deref();
        let name = |index: IfIndex| host.map_or_else(|| index.to_string(), |host| host.link_name(index));
        let guest = [device, packet.input_device]
            .into_iter()
            .flatten()
            .find_map(|device| host?.guest_of(device))
            .map(|guest| guest.name.clone());
        let guest = match guest {
            Some(guest) => {
                self.owners.insert(packet.flow, (self.serial + 1, guest.clone()));
                Some(guest)
            }
            None => self.owner(packet.flow),
        };
        let mut text = packet.flow.to_string();
        if packet.count > 1 {
            text = format!("{text}  ×{}", packet.count);
        }
        let device = device.map(name).unwrap_or_default();
        let packet = Some(Box::new(packet.clone()));
        self.add(LogEntry { guest, device, why, packet, ..LogEntry::new(time, kind, text) });
    }

    /// The guest that sends or receives this flow, as far as the entries tell.
    fn owner(&self, flow: FlowKey) -> Option<String> {
        [flow, flow.reverse()].iter().find_map(|flow| self.owners.get(flow)).map(|(_, guest)| guest.clone())
    }

    /// Gives an entry its number and puts it into the ring.
    fn add(&mut self, entry: LogEntry) {
        self.serial += 1;
        let guest = entry.guest.as_deref().unwrap_or("");
        let parts = [entry.kind.word(), guest, &entry.device, &entry.why, &entry.text];
        let search = parts.join(" ").to_lowercase();
        self.entries.push_back(Arc::new(LogEntry { serial: self.serial, search, ..entry }));
        if self.entries.len() > LENGTH
            && let Some(oldest) = self.entries.pop_front()
            && let Some(packet) = &oldest.packet
            && self.owners.get(&packet.flow).is_some_and(|(serial, _)| *serial == oldest.serial)
        {
            self.owners.remove(&packet.flow);
        }
    }
}

/// `NETFILTER_DROP in nft_do_chain`
pub(super) fn site_text(site: &DropSite) -> String {
    let reason = site.reason.as_deref().unwrap_or("no reason told");
    match &site.function {
        Some(function) => format!("{reason} in {function}"),
        None => reason.to_owned(),
    }
}

/// What changed on the host, in a line; nothing when only counters and neighbours did.
fn change(before: &HostState, after: &HostState) -> Option<String> {
    let mut parts = Vec::new();
    for (index, link) in &after.links {
        match before.links.get(index) {
            None => parts.push(format!("{} came", link.name)),
            Some(old) => {
                if old.up != link.up {
                    parts.push(format!("{} {}", link.name, if link.up { "up" } else { "down" }));
                }
                if old.carrier != link.carrier {
                    parts.push(format!(
                        "{} {}",
                        link.name,
                        if link.carrier { "has a carrier" } else { "lost its carrier" }
                    ));
                }
                if old.mtu != link.mtu {
                    parts.push(format!("{} MTU {} → {}", link.name, old.mtu, link.mtu));
                }
                if old.master != link.master {
                    parts.push(match link.master {
                        Some(bridge) => format!("{} joined {}", link.name, after.link_name(bridge)),
                        None => format!("{} left its bridge", link.name),
                    });
                }
            }
        }
    }
    let gone = before.links.iter().filter(|(index, _)| !after.links.contains_key(index));
    parts.extend(gone.map(|(_, link)| format!("{} went", link.name)));
    if before.routes != after.routes {
        parts.push("routes changed".to_owned());
    }
    if before.netfilter.chains.len() != after.netfilter.chains.len() {
        parts.push("firewall changed".to_owned());
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}
