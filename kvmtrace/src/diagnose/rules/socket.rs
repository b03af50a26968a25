//! The end of the way: `port-closed`, `listen-overflow`, `socket-buffer-full`, and what an ICMP error or a reset tells.

use crate::diagnose::facts::place::{at, beyond};
use crate::diagnose::facts::sites::Site;
use crate::diagnose::fix::sysctl;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict, Where};
use crate::diagnose::words;
use crate::event::Protocol;

/// A drop at a socket of this host.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let device = drop.device().or_else(|| case.bridge().map(|bridge| bridge.index)).or(case.device())?;
    let place = at(case.scene, device, Point::Socket).of(drop);
    let what = case.dropped_share();
    let port =
        drop.flow.key.destination_port.map_or_else(String::new, |port| format!(" {} {port}", drop.flow.key.protocol));
    let overflow =
        drop.because(&["TCP_LISTEN_OVERFLOW", "TCP_REQQFULLDROP", "TCP_MINTTL_LISTEN"]) || drop.within(Site::SynCookie);
    if overflow {
        let explanation = format!(
            "{what} met a full accept queue: the service on port{port} of this host does not accept connections as fast as they come."
        );
        return Some(backlog_fixes(case, Judgement::dropped(Cause::ListenOverflow, place, explanation)));
    }
    if drop.because(&["SOCKET_RCVBUFF", "SOCKET_BACKLOG", "PROTO_MEM", "UDP_RCVBUF"])
        || drop.within(Site::UdpQueue) && !drop.because(&["NO_SOCKET", "SOCKET_FILTER", "UDP_CSUM"])
    {
        let name = "net.core.rmem_max";
        let now = case.scene.host.sysctl(name).and_then(|value| value.parse::<u64>().ok()).unwrap_or(212_992);
        let explanation = format!(
            "{what} found the receive buffer of the socket on port{port} full: the program behind it reads too slowly."
        );
        // A longer queue rides out bursts; whoever reads next to nothing fills any.
        let bursts = drop.totals.packets * 10 < case.packets() * 9;
        let raise = bursts.then(|| {
            sysctl::set(
                case.scene.host,
                "net.core.rmem_default",
                &(now * 8).to_string(),
                "A larger default buffer for sockets that are opened from now on: restart the program.",
            )
        });
        return Some(
            Judgement::dropped(Cause::SocketBufferFull, place, explanation)
                .evidence([format!("{name} = {now}")])
                .fix(Fix::advice(format!(
                    "See whether the program on port{port} of this host hangs (ss -lnump shows it and its buffer), and let it read faster or ask for a larger SO_RCVBUF."
                )))
                .fixes(raise),
        );
    }
    let closed = drop.because(&["NO_SOCKET"])
        // A kernel without reasons: later ones tell what else ends there.
        || drop.site.reason.is_none()
            && drop.within(Site::NoSocket);
    if !closed || !matches!(case.key().protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp) {
        return None;
    }
    let answer = if case.key().protocol == Protocol::Tcp { "a reset" } else { "ICMP \"port unreachable\"" };
    let explanation = format!(
        "{what} came to port{port} of this host, where nothing listens on that address; it answered with {answer}."
    );
    Some(
        Judgement::dropped(Cause::PortClosed, place, explanation)
            .verdict(Verdict::Refused)
            .severity(Severity::Warning)
            .fix(Fix::advice(format!("Start the service that should listen on port{port} of this host (ss -lntup shows which do, and on which addresses: 127.0.0.1 is for this host alone), or let the sender use the right port."))),
    )
}

/// A full accept queue takes the request without a word and without a drop (`tcp_conn_request`): the counters tell.
pub fn judge_backlog(case: &Case<'_>) -> Option<Judgement> {
    let asked = case.hops.iter().any(|(_, counters)| counters.tcp_syn > 0);
    if case.key().protocol != Protocol::Tcp || case.way() != Way::Host || !asked || case.answered() > 0 {
        return None;
    }
    let counter = |host: &crate::event::HostState| host.counters.get("TcpExt.ListenOverflows").copied().unwrap_or(0);
    let grown = counter(case.scene.host).saturating_sub(counter(case.scene.track.first_host()));
    if grown == 0 {
        return None;
    }
    let device = case.bridge().map(|bridge| bridge.index).or(case.device())?;
    let port = case.key().destination_port?;
    let explanation = format!(
        "{} asked for a connection to port {port} of this host and got no answer: accept queues of this host overflowed {grown} times meanwhile.",
        words::packets(case.packets())
    );
    Some(backlog_fixes(
        case,
        Judgement::dropped(Cause::ListenOverflow, at(case.scene, device, Point::Socket), explanation)
            .evidence([format!("TcpExt.ListenOverflows +{grown}")]),
    ))
}

fn backlog_fixes(case: &Case<'_>, judgement: Judgement) -> Judgement {
    let host = case.scene.host;
    let somaxconn = host.sysctl("net.core.somaxconn").and_then(|value| value.parse::<u32>().ok()).unwrap_or(4_096);
    let why = "Caps the backlog that a service may ask for; takes effect when it listens anew.";
    let raise = (somaxconn < 4_096).then(|| sysctl::set(host, "net.core.somaxconn", "4096", why));
    judgement
        .fix(Fix::advice(format!(
            "See whether the service{} hangs (ss -lntp shows it and its queue), and let it accept faster or give listen() a larger backlog; restart it then.",
            case.key().destination_port.map_or_else(String::new, |port| format!(" on port {port} of this host"))
        )))
        .fixes(raise)
}

/// An answer that says no, from whoever gave it.
pub fn judge_told(case: &Case<'_>) -> Option<Judgement> {
    let key = case.key();
    let reset = key.protocol == Protocol::Tcp && is_refused(case);
    let error = case.errors.iter().find(|error| error.about.is_unreachable());
    // A probe of an address that its owner has just lost (a restart, a renumbering) is answered so, and asked anew.
    if !reset && error.is_none() || case.is_neighbour_traffic() {
        return None;
    }
    // Clients read leases from raw sockets: their kernel knows no port 68 and says so.
    if key.protocol == Protocol::Udp && key.source_port == Some(67) && key.destination_port == Some(68) {
        return None;
    }
    if let Some(judgement) = other_source(case, error.is_some_and(|error| error.about.is_port_unreachable())) {
        return Some(judgement);
    }
    // Whom this host sent it to, where it translates the destination of what guests send.
    let sent = case.group.translated.filter(|_| case.is_from_guest()).unwrap_or(key);
    let from = error.map_or_else(|| sent.destination.to_string(), |error| error.about.from.to_string());
    let is_end = |from| Some(from) == key.destination.ip() || Some(from) == sent.destination.ip();
    let (place, who) = teller(case, &from, error.is_none_or(|error| is_end(error.about.from)));
    let port = sent.destination_port.map_or_else(String::new, |port| format!(" {} {port}", key.protocol));
    let packets = words::packets(case.packets());
    let (cause, explanation, advice) = match error.map(|error| error.about) {
        Some(about) if about.is_prohibited() => (
            Cause::NetfilterReject,
            format!("{packets} were refused by {who}: its firewall answered \"administratively prohibited\"."),
            format!("Open the firewall of {who} for this flow."),
        ),
        Some(about) if case.scene.is_host_address(about.from) && !about.is_port_unreachable() && case.is_to_host() => (
            Cause::NeighbourUnresolved,
            format!(
                "{packets} for {}, an address of this host that it translates to another: that one does not answer on its link, and the host told the sender so.",
                key.destination
            ),
            format!(
                "Check the rules that translate what is for {} (nft list ruleset; iptables -t nat -S): is the address that they lead to right, and its owner up?",
                key.destination
            ),
        ),
        Some(about) if case.scene.is_host_address(about.from) && !about.is_port_unreachable() => (
            Cause::NeighbourUnresolved,
            format!(
                "{packets} could not be delivered by this host, which told the sender so: {} does not answer on its last link.",
                key.destination
            ),
            format!("Check that {} is right and that its owner is up and reachable from this host.", key.destination),
        ),
        Some(about) if !about.is_port_unreachable() => (
            Cause::NoReply,
            format!("{packets} were refused by {who} with ICMP type {} code {} (unreachable).", about.kind, about.code),
            format!("Look on {who}: it has no way to {}.", key.destination),
        ),
        _ => (
            Cause::PortClosed,
            format!("{packets} came to port{port} of {who}, where nothing listens."),
            format!("Start the service on {who}, or let the sender use the right port."),
        ),
    };
    Some(
        Judgement::dropped(cause, place, explanation)
            .verdict(Verdict::Refused)
            .severity(Severity::Warning)
            .fix(Fix::advice(advice)),
    )
}

/// An answer from another address than the one that was asked: the socket that asked takes answers of that one only
/// (`__udp4_lib_lookup`), and the kernel says that no port is open.
fn other_source(case: &Case<'_>, refused: bool) -> Option<Judgement> {
    let key = case.key();
    if key.protocol != Protocol::Udp || !refused || case.answered() > 0 {
        return None;
    }
    let (asker, answerer) = (key.destination, key.source.ip()?);
    let asked = case.scene.track.flows().find(|flow| {
        let same = flow.key.protocol == Protocol::Udp
            && (flow.key.source, flow.key.source_port) == (asker, key.destination_port)
            && flow.key.destination_port == key.source_port
            && flow.key.destination != key.source;
        same && flow.first <= case.group.main.first && case.scene.track.get(&flow.key.reverse()).is_none()
    })?;
    let to = asked.key.destination;
    let (place, who) = teller(case, &asker.to_string(), true);
    let port = key.source_port?;
    let sender = case.device().filter(|_| case.is_from_guest()).and_then(|device| case.scene.guest_name(device));
    let sender = sender.unwrap_or_else(|| format!("the machine with {answerer}"));
    let explanation = format!(
        "{} from {answerer} answered what {who} asked of {to} udp {port}: a socket that asked {to} takes no answer of another address.",
        words::packets(case.packets())
    );
    let advice = format!(
        "Let the service on {sender} answer from the address that was asked: bind it to {to} (or to each address of its own), or ask {answerer}. Where a router translates, it has to translate the answers as well."
    );
    let evidence = format!("asked: udp {asker}:{} → {to}:{port}", key.destination_port?);
    Some(
        Judgement::dropped(Cause::NoReply, place, explanation)
            .verdict(Verdict::Refused)
            .severity(Severity::Warning)
            .evidence([evidence])
            .fix(Fix::advice(advice)),
    )
}

/// A connection attempt that was answered by a reset.
pub fn is_refused(case: &Case<'_>) -> bool {
    let sum = |pick: fn(&crate::event::FlowCounters) -> u32| {
        case.answers.iter().flat_map(|flow| flow.places.values()).map(pick).max().unwrap_or(0)
    };
    let asked = case.hops.iter().any(|(_, counters)| counters.tcp_syn > 0);
    asked && sum(|counters| counters.tcp_reset) > 0 && sum(|counters| counters.tcp_syn_ack) == 0
}

fn teller(case: &Case<'_>, from: &str, is_end: bool) -> (Where, String) {
    let scene = case.scene;
    match case.way() {
        Way::Guest(device) if is_end => {
            let name = scene.guest_name(device).unwrap_or_else(|| "the guest".to_owned());
            (at(scene, device, Point::Guest), format!("{name} ({from})"))
        }
        Way::Host => {
            let device = case.bridge().map(|bridge| bridge.index).or(case.device());
            let place = Where {
                device: device.map(|device| scene.name(device)),
                point: Point::Socket,
                function: None,
                reason: None,
            };
            (place, format!("this host ({from})"))
        }
        Way::Guest(_) | Way::Uplink | Way::Routed | Way::Group | Way::Unknown => {
            (beyond(case.last_device().map(|device| scene.name(device))), from.to_owned())
        }
    }
}
