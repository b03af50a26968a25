//! Commands for a network namespace that the operator is not in: they are written to run from outside, and run inside as well.

use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::HostState;

/// Leads the commands into the namespace that was looked at.
pub(in crate::diagnose) fn complete(host: &HostState, fix: &mut Fix) {
    let Some(netns) = &host.netns else { return };
    for command in [&mut fix.command, &mut fix.undo].into_iter().flatten() {
        *command = within(netns, command);
    }
}

fn within(netns: &str, command: &str) -> String {
    // ip-netns(8) knows names, and shows the namespace's own /sys.
    let way = if netns.contains('/') {
        format!("nsenter --net={}", quote(netns))
    } else {
        format!("ip netns exec {}", quote(netns))
    };
    // One command needs no shell of its own there; what a shell would divide or direct does.
    let needs_shell = command.contains(['|', '&', ';', '<', '>', '$', '`', '\n']);
    if needs_shell { format!("{way} sh -c {}", quote(command)) } else { format!("{way} {command}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_led_into_the_namespace() {
        let plain = within("tenant-7", "ip link set dev eth0 mtu 1500");
        assert_eq!(plain, "ip netns exec tenant-7 ip link set dev eth0 mtu 1500");
        let two = within("tenant-7", "ip link set dev a up && ip link set dev b up");
        assert_eq!(two, "ip netns exec tenant-7 sh -c 'ip link set dev a up && ip link set dev b up'");
        assert_eq!(within("/proc/7/ns/net", "true; true"), "nsenter --net=/proc/7/ns/net sh -c 'true; true'");
        let quoted = within("t", "nft 'add rule ip t c accept; add rule ip t d accept'");
        assert_eq!(quoted, r"ip netns exec t sh -c 'nft '\''add rule ip t c accept; add rule ip t d accept'\'''");
    }
}
