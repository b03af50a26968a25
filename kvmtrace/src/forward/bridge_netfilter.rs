//! The rules that a bridged frame meets: those of the bridge family, and within them those of IP and ARP where br_netfilter is on
//! (`br_netfilter_hooks.c`, `br_netfilter_ipv6.c` of 6.12).

use super::firewall::At as Site;
use super::packet::{Network, Packet};
use super::walker::{BridgeFrame, Task, Walker};
use crate::event::IfIndex;
use crate::event::ruleset::{Hook, Layer};

const RULES: &[&str] = &["nft_do_chain", "nf_hook_slow"];

impl Walker<'_, '_> {
    /// The bridge family's hook, and where br_netfilter is on the IP (or ARP) rules within it. False where they end the packet.
    pub(super) fn bridge_rules(
        &mut self,
        task: &mut Task,
        hook: Hook,
        frame: &mut BridgeFrame,
        port: Option<IfIndex>,
    ) -> bool {
        let site = Site {
            layer: Layer::Bridge,
            hook,
            input: frame.from,
            output: port.or_else(|| (hook == Hook::Input).then_some(frame.bridge)),
            input_port: None,
            output_port: None,
            next_hop: None,
        };
        if !self.rules(task, RULES, &site) {
            return false;
        }
        let Some(layer) = self.bridged_layer(frame.bridge, &task.packet) else { return true };
        match (layer, hook) {
            (Layer::Arp, Hook::Forward) | (Layer::Ipv4 | Layer::Ipv6, Hook::Prerouting) => {}
            (Layer::Ipv4 | Layer::Ipv6, Hook::Forward | Hook::Postrouting) if frame.filtered => {}
            _ => return true,
        }
        frame.filtered = true;
        let bridge = Some(frame.bridge);
        let output = (hook != Hook::Prerouting).then_some(frame.bridge);
        let site =
            Site { layer, hook, input: bridge, output, input_port: frame.from, output_port: port, next_hop: None };
        let before = task.packet.ip().map(|ip| ip.destination);
        if !self.rules(
            task,
            &["br_nf_pre_routing", "br_nf_forward_ip", "br_nf_forward_arp", "br_nf_post_routing"],
            &site,
        ) {
            return false;
        }
        // br_nf_pre_routing_finish: a translated destination is routed, so the bridge itself takes the frame.
        if hook == Hook::Prerouting && task.packet.ip().map(|ip| ip.destination) != before {
            task.packet.destination_mac = self.topology.link(frame.bridge).and_then(|link| link.mac);
        }
        true
    }

    /// Which IP rules br_netfilter asks for a bridged frame: by the global sysctl or the bridge's own flag.
    fn bridged_layer(&self, bridge: IfIndex, packet: &Packet) -> Option<Layer> {
        let own = self.bridge(bridge).map(|bridge| bridge.state);
        let on = |sysctl: &str, own: bool| {
            own || self.topology.sysctl(&format!("net.bridge.bridge-nf-call-{sysctl}")).unwrap_or(0) != 0
        };
        let tagged = !packet.tags.is_empty();
        if tagged && self.topology.sysctl("net.bridge.bridge-nf-filter-vlan-tagged").unwrap_or(0) == 0 {
            return None;
        }
        match &packet.network {
            Network::Ip(ip) if ip.destination.is_ipv4() => {
                on("iptables", own.is_some_and(|own| own.netfilter_ip)).then_some(Layer::Ipv4)
            }
            Network::Ip(_) => on("ip6tables", own.is_some_and(|own| own.netfilter_ip6)).then_some(Layer::Ipv6),
            Network::Arp(_) => on("arptables", own.is_some_and(|own| own.netfilter_arp)).then_some(Layer::Arp),
            Network::Other(_) => None,
        }
    }
}
