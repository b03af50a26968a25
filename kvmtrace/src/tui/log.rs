//! The newest events, in a form that can be listed and opened.

use crate::event::{
    DropSite, Event, EventKind, FlowKey, HostState, IfIndex, Loss, PacketCause, PacketRecord, Timestamp,
};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Events kept.
const LENGTH: usize = 2_000;

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
            Self::IcmpError => "icmp-error",
            Self::MacChanged => "mac-change",
            Self::First => "first",
            Self::Packet => "packet",
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
    /// In a line.
    pub text: String,
    /// The packet, if there is one.
    pub packet: Option<Box<PacketRecord>>,
    /// What a filter searches, in lower case.
    pub search: String,
}

/// A ring of the newest events.
#[derive(Debug, Default)]
pub struct Log {
    entries: VecDeque<Arc<LogEntry>>,
    serial: u64,
    host: Option<Box<HostState>>,
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
                    self.add(event.time, LogKind::Host, None, String::new(), text, None);
                }
                self.host = Some(host.clone());
            }
            EventKind::Loss(loss) => {
                if *loss != self.loss {
                    let text = format!(
                        "{} records, {} flows evicted, {} packets found a map full",
                        loss.ring_events, loss.flows_evicted, loss.map_full
                    );
                    self.add(event.time, LogKind::Loss, None, String::new(), text, None);
                }
                self.loss = *loss;
            }
            EventKind::Degraded(degraded) => {
                let text = format!("{}: {}", degraded.what, degraded.why);
                self.add(event.time, LogKind::Degraded, None, String::new(), text, None);
            }
            EventKind::Started(_) => {
                self.add(event.time, LogKind::Trace, None, String::new(), "tracing began".to_owned(), None);
            }
            EventKind::Ended => {
                self.add(event.time, LogKind::Trace, None, String::new(), "tracing ended".to_owned(), None);
            }
            EventKind::Flow(_) | EventKind::Drop(_) => {}
        }
    }

    /// The entries, oldest first.
    pub fn entries(&self) -> Vec<Arc<LogEntry>> {
        self.entries.iter().cloned().collect()
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
        if !why.is_empty() {
            text = format!("{text}  {why}");
        }
        if packet.count > 1 {
            text = format!("{text}  ×{}", packet.count);
        }
        let device = device.map(name).unwrap_or_default();
        self.add(time, kind, guest, device, text, Some(Box::new(packet.clone())));
    }

    /// The guest that sends or receives this flow, as far as the entries tell.
    fn owner(&self, flow: FlowKey) -> Option<String> {
        [flow, flow.reverse()].iter().find_map(|flow| self.owners.get(flow)).map(|(_, guest)| guest.clone())
    }

    fn add(
        &mut self,
        time: Timestamp,
        kind: LogKind,
        guest: Option<String>,
        device: String,
        text: String,
        packet: Option<Box<PacketRecord>>,
    ) {
        self.serial += 1;
        let search = format!("{} {} {device} {text}", kind.word(), guest.as_deref().unwrap_or("")).to_lowercase();
        self.entries.push_back(Arc::new(LogEntry {
            serial: self.serial,
            time,
            kind,
            guest,
            device,
            text,
            packet,
            search,
        }));
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
