//! Commands for a guest that is paused, or whose card is unplugged or has its link held down: its manager's own.

use crate::diagnose::facts::machine::{Trouble, libvirt_name};
use crate::diagnose::report::{Cause, Fix};
use crate::diagnose::shell::quote;
use crate::event::host::{Guest, Link, LinkKind};

/// The cause that such a trouble is.
pub fn cause(trouble: Trouble) -> Cause {
    match trouble {
        Trouble::Paused | Trouble::StoodStill => Cause::GuestPaused,
        Trouble::LinkDown => Cause::GuestLinkDown,
        Trouble::Unplugged => Cause::GuestNicMissing,
    }
}

/// How it is mended.
pub fn fixes(trouble: Trouble, guest: &Guest, link: &Link) -> Vec<Fix> {
    let fix = match trouble {
        Trouble::Paused => resume(guest),
        Trouble::LinkDown => set_link(guest, link),
        Trouble::StoodStill | Trouble::Unplugged => None,
    };
    vec![fix.unwrap_or_else(|| Fix::advice(advice(trouble, guest, link)))]
}

fn resume(guest: &Guest) -> Option<Fix> {
    let name = libvirt_name(guest)?;
    Some(
        Fix::run(
            format!("virsh resume {name}"),
            format!("virsh suspend {name}"),
            format!("Lets {} run again.", guest.name),
        )
        .risk("It may be paused for a reason: a snapshot, a migration, a full disk (virsh domstate --reason)."),
    )
}

fn set_link(guest: &Guest, link: &Link) -> Option<Fix> {
    let name = quote(&link.name);
    if let Some(guest_name) = libvirt_name(guest) {
        let command = |state: &str| format!("virsh domif-setlink {guest_name} {name} {state}");
        return Some(
            Fix::run(command("up"), command("down"), format!("Plugs the cable of {} in again.", guest.name))
                .risk("The link may be held down for a reason: a quarantine, a migration.")
                .persist("virsh edit: take <link state='down'/> out of the interface."),
        );
    }
    let switched_off = link.kind == LinkKind::Tun && !link.carrier;
    let command = |state: &str| format!("ip link set dev {name} carrier {state}");
    switched_off.then(|| {
        Fix::run(command("on"), command("off"), format!("Gives {} a carrier again.", link.name))
            .risk("The link may be held down for a reason: a quarantine, a migration.")
    })
}

fn advice(trouble: Trouble, guest: &Guest, link: &Link) -> String {
    let name = &guest.name;
    match trouble {
        Trouble::Paused | Trouble::StoodStill => format!(
            "Look at what state {name} is in and let it run: `cont` in its monitor ({{\"execute\": \"cont\"}} over QMP), virsh resume, qm resume; after an error of its storage, mend that first."
        ),
        Trouble::LinkDown => format!(
            "Set the link of {name} up where its manager sets it: `set_link DEVICE on` in its monitor, virsh domif-setlink, qm set with link_down=0."
        ),
        Trouble::Unplugged => format!(
            "Plug a card for {} into {name} again (virsh attach-interface, qm set, device_add in its monitor), or delete the device.",
            link.name
        ),
    }
}
