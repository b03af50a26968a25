//! Devices that this host serves by itself, beside any bridge.

use crate::event::host::{Link, Network};
use crate::event::{HostState, is_link_local};

/// This host has an address or a route on the device, or answers there for others (`proxy_arp`, `proxy_ndp`, entries of
/// `ip neigh add proxy`). What a device has of itself once it is up does not count.
pub fn is_served(host: &HostState, link: &Link) -> bool {
    let of_itself = |network: &Network| {
        network.address.is_ipv6() && (is_link_local(network.address) || network.address.is_multicast())
    };
    let routes = host.routes.iter().filter(|route| route.device == Some(link.index));
    let mut networks = link.addresses.iter().chain(routes.map(|route| &route.destination));
    let answers = |key: &str| host.sysctl(&format!("net.{key}")) == Some("1");
    networks.any(|network| !of_itself(network))
        || host.proxies.iter().any(|(_, device)| *device == link.index)
        || answers(&format!("ipv4.conf.{}.proxy_arp", link.name))
        || answers(&format!("ipv6.conf.{}.proxy_ndp", link.name))
}
