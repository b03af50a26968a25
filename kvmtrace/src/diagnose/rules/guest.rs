//! `guest-not-reading` and `guest-gone`: the tap's ring is full, or nobody reads it. `guest-paused`, `guest-link-down` and
//! `guest-nic-missing`: what its hypervisor does.
//!
//! `tun_net_xmit` drops with `FULL_RING`; with `DEV_READY` when no file is attached. macvtap: `tap_handle_frame`.

use crate::diagnose::facts::machine;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::faults::guest::{gone, guest_behind, held};
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind};
use crate::event::is_link_local;
use crate::event::{Address, Direction, FlowCounters, IfIndex, Place, Protocol};
use std::net::IpAddr;

/// What the hypervisor does with the guest or its card explains a drop at its device.
pub fn judge_machine(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let device = drop.device().filter(|device| case.scene.interface(*device).is_some())?;
    let judgement = held(case, device)?;
    Some(Judgement { place: judgement.place.clone().of(drop), verdict: Verdict::Dropped, ..judgement })
}

/// What was to be answered by a guest that is paused, or whose card is unplugged or has its link held down.
pub fn judge_held(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    if case.is_neighbour_traffic() {
        let asked = case.group.main.target.or(case.key().destination.ip())?;
        if scene.is_host_address(asked) || case.answered() > 0 || !case.expects_answer() {
            return None;
        }
        let owner = scene.guest_by_address(Address::Ip(asked)).or_else(|| silent_guest(case, asked))?;
        return held(case, owner);
    }
    let device =
        if let Way::Guest(device) = case.way() { device } else { case.device().filter(|_| !case.is_from_guest())? };
    held(case, device)
}

/// The one guest that a question to all reached, of which no address of this kind is known, and which can't answer.
fn silent_guest(case: &Case<'_>, asked: IpAddr) -> Option<IfIndex> {
    let scene = case.scene;
    let kind = |address: &IpAddr| (address.is_ipv6(), is_link_local(*address));
    let interfaces = scene.host.guests.iter().flat_map(|guest| &guest.interfaces).map(|interface| interface.device);
    let unknown = |device: &IfIndex| !scene.addresses_of(*device).iter().any(|known| kind(known) == kind(&asked));
    let reached =
        |device: &IfIndex| Some(*device) != case.device().filter(|_| case.is_from_guest()) && case.reached(*device);
    let mut candidates = interfaces.filter(|device| reached(device) && unknown(device));
    let only = candidates.next().filter(|_| candidates.next().is_none())?;
    machine::observed(scene, only).map(|_| only)
}

/// The guest's process has ended during the trace; from then on nobody read what came for it. A manager takes the tap away with
/// it, and what follows is flooded to other ports.
pub fn judge_ended(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let device =
        if let Way::Guest(device) = case.way() { device } else { case.device().filter(|_| !case.is_from_guest())? };
    let guest = scene.host.guest_of(device).filter(|guest| scene.host.is_abandoned(guest))?;
    scene.track.first_host().guest_of(device)?.pid?;
    let (sent, got) = (case.packets(), case.left());
    // A question to all came to others, too; this one got no answer.
    let missed = if case.is_multicast() { case.expects_answer() && case.answered() == 0 } else { got < sent };
    let unheard = case.key().protocol.is_echo_request() && case.answered() < got;
    if !missed && !unheard {
        return None;
    }
    let link = scene.link(device)?;
    let what = if got < sent { words::share(sent - got, sent) } else { words::packets(sent) };
    let there = if link.up { "its tap has no process any more" } else { "its tap went down or was removed with it" };
    let explanation =
        format!("{what} found {} on {} gone: its process ended during the trace, and {there}.", guest.name, link.name);
    let place = at(scene, device, Point::TapEgress);
    let place = match &case.focus {
        Some(drop) => place.of(drop),
        None => place,
    };
    let was = scene.track.first_host().guest_of(device).and_then(|guest| guest.pid);
    if let Some(port) = moved_behind(case, device) {
        let explanation = format!(
            "{} is no longer on this host: its process ended during the trace, and its MAC address is heard behind {} now, as after a live migration. {what} did not find it here any more.",
            guest.name, port.name
        );
        return Some(
            Judgement::dropped(Cause::GuestGone, place, explanation)
                .verdict(if got < sent { Verdict::Lost } else { Verdict::Unanswered })
                .severity(Severity::Info)
                .fix(Fix::advice(format!(
                    "Nothing is to be done if {} was migrated; look for it behind {}.",
                    guest.name, port.name
                ))),
        );
    }
    Some(
        Judgement::dropped(Cause::GuestGone, place, explanation)
            .verdict(if got < sent { Verdict::Lost } else { Verdict::Unanswered })
            .evidence(was.map(|pid| format!("{}: process {pid} when the trace began, none when it ended", link.name)))
            .fix(Fix::advice(format!(
                "Start {} again if it was not meant to end (virsh start, qm start, or its manager), and find out why it did (journal, the hypervisor's log).",
                guest.name
            ))),
    )
}

/// The uplink of the guest's bridge behind which its MAC address is heard.
fn moved_behind<'a>(case: &Case<'a>, device: IfIndex) -> Option<&'a Link> {
    let scene = case.scene;
    let before = scene.track.as_taken().first_host();
    let mac = scene.mac_of(device)?;
    let bridge = before.link(device)?.master?;
    let is_uplink = |port: &&Link| scene.interface(port.index).is_none() && port.master == Some(bridge);
    let came = |(place, counters): &(&Place, &FlowCounters)| {
        place.direction == Direction::Ingress && counters.source_mac == mac
    };
    let heard = scene.track.flows().flat_map(|flow| &flow.places).filter(came);
    heard.filter_map(|(place, _)| scene.link(place.device)).find(is_uplink)
}

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let link = case.scene.link(drop.device()?)?;
    // `tap_handle_frame` leaves frames to the host's own stack while nobody has the macvtap open.
    let to_stack = matches!(link.kind, LinkKind::Macvtap { .. })
        && Some(link.index) == case.device()
        && !case.is_from_guest()
        && drop.within(Site::MacvtapToStack);
    if to_stack {
        return Some(gone(case, link, at(case.scene, link.index, Point::TapEgress).of(drop)));
    }
    if !drop.within(Site::GuestRing) {
        return None;
    }
    let full = drop.because(&["FULL_RING"]) || drop.is_unspecified() && link.carrier;
    let place = at(case.scene, link.index, Point::TapEgress).of(drop);
    let guest = guest_behind(case, link);
    let what = case.dropped_share();
    if !full {
        return Some(gone(case, link, place));
    }
    let owner = case.scene.host.guest_of(link.index);
    let stopped = owner.is_some_and(|guest| guest.stopped);
    let share = drop.totals.packets as f64 / case.packets().max(1) as f64;
    // TCP finds its rate by filling queues: a little loss is how it works.
    let severity = if stopped || share >= 0.1 {
        Severity::Error
    } else if case.key().protocol == Protocol::Tcp && share < 0.02 {
        Severity::Info
    } else {
        Severity::Warning
    };
    let why = if stopped { "its process is stopped" } else { "it does not read its packets, or not fast enough" };
    let explanation = format!(
        "{what} found the ring that {guest} reads on {} full ({} places): {why}.",
        link.name, link.queue_length
    );
    let longer = (link.queue_length.max(500) * 4).min(20_000);
    let name = quote(&link.name);
    let stuck = stopped || share > 0.9;
    let wake = match owner.and_then(|guest| guest.pid).filter(|_| stuck) {
        Some(pid) => wake(&guest, pid),
        None => Fix::advice(format!(
            "Resume or unblock {guest}: a paused or stopped VM reads nothing (virsh domstate, virsh resume; kill -CONT of its process; look at its CPU load)."
        )),
    };
    let queue = Fix::run(
        format!("ip link set dev {name} txqueuelen {longer}"),
        format!("ip link set dev {name} txqueuelen {}", link.queue_length),
        "A longer ring rides out bursts.",
    )
    .risk("More memory and, under load, more delay.")
    .persist("Set it where the tap is made (a libvirt hook, a udev rule); more vhost queues in the guest's definition help as well.");
    let judgement =
        Judgement::dropped(Cause::GuestNotReading, place, explanation).severity(severity).evidence([format!(
            "{}: txqueuelen {}, tx_dropped {}",
            link.name, link.queue_length, link.statistics.tx_dropped
        )]);
    Some(if stuck { judgement.fix(wake).fix(queue) } else { judgement.fix(queue).fix(wake) })
}

/// The process of the guest that should get or answer this is stopped: its ring takes packets until it is full, and nothing
/// is dropped meanwhile.
pub fn judge_stopped(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let device =
        if let Way::Guest(device) = case.way() { device } else { case.device().filter(|_| !case.is_from_guest())? };
    let link = scene.link(device)?;
    let guest = scene.host.guest_of(device).filter(|guest| guest.stopped)?;
    let pid = guest.pid?;
    let what = words::packets(case.packets());
    let explanation = format!(
        "{what} went to {} on {}, whose process {pid} is stopped: it reads and answers nothing.",
        guest.name, link.name
    );
    Some(
        Judgement::dropped(Cause::GuestNotReading, at(scene, device, Point::TapEgress), explanation)
            .verdict(Verdict::Unanswered)
            .evidence([format!("process {pid} of {}: stopped (state T)", guest.name)])
            .fix(wake(&guest.name, pid)),
    )
}

/// Nobody has the macvtap open that this went to. `tap_handle_frame` leaves such frames to the host's own stack, and that
/// takes a question for an address that it does not have in silence (`arp_process`, `ndisc_recv_ns`).
pub fn judge_gone(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let device =
        if let Way::Guest(device) = case.way() { device } else { case.device().filter(|_| !case.is_from_guest())? };
    let link = scene.link(device).filter(|link| link.up && matches!(link.kind, LinkKind::Macvtap { .. }))?;
    scene.host.guest_of(device).filter(|guest| scene.host.is_abandoned(guest))?;
    Some(gone(case, link, at(scene, device, Point::TapEgress)).verdict(Verdict::Unanswered))
}

fn wake(guest: &str, pid: u32) -> Fix {
    Fix::run(
        format!("kill -CONT {pid}"),
        format!("kill -STOP {pid}"),
        format!(
            "Lets the process of {guest} run again if it was stopped; a guest paused by its manager is resumed there (virsh resume)."
        ),
    )
    .risk("Whoever stopped it may have had a reason: a snapshot, a debugger.")
}
