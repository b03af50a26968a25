//! Cures by `ip link`, `bridge` and `tc`.

use crate::diagnose::facts::macvtap::mode;
use crate::diagnose::facts::routes::MAIN;
use crate::diagnose::report::{DeviceSetting, Fix, Setting};
use crate::diagnose::shell::quote;
use crate::event::host::{Link, LinkKind, Network, Qdisc, Route};
use crate::event::is_link_local;
use crate::event::names::MacvtapMode;
use crate::event::{HostState, MacAddress};
use crate::forward::effect::{BridgeOption, Effect, PortFlag};
use std::net::IpAddr;

const PERSIST_LINK: &str = "Set it where the device is configured (netplan, NetworkManager, ifupdown, systemd-networkd; for a guest's tap in the guest's definition).";

fn of(link: &Link, what: DeviceSetting) -> Setting {
    Setting::Device { device: link.name.clone(), what }
}

/// Routes that a command sets again at most.
const ROUTES: usize = 16;

/// Routes of a kind that were there before; none where not all routes are known, then or now.
pub fn lost_routes<'a>(
    host: &'a HostState,
    before: &'a HostState,
    wanted: impl Fn(&Route) -> bool + 'a,
) -> impl Iterator<Item = &'a Route> {
    let known = !before.is_cut("routes") && !host.is_cut("routes");
    before.routes.iter().filter(move |route| known && wanted(route) && !host.routes.contains(route))
}

/// Brings a device up, and with it the routes that the kernel removed when it went down.
pub fn up(host: &HostState, before: &HostState, link: &Link) -> Fix {
    let name = quote(&link.name);
    let by_device = |route: &Route| route.device == Some(link.index) && route.gateway.is_some();
    let lost: Vec<&Route> = lost_routes(host, before, by_device).take(ROUTES + 1).collect();
    // More come from a routing daemon, which will set them again.
    let lost = if lost.len() > ROUTES { Vec::new() } else { lost };
    let routes: Vec<String> =
        lost.iter().map(|route| format!(" && {}", route_command("add", route, &link.name))).collect();
    let routes = routes.concat();
    let lost_effects: Vec<Effect> = lost.iter().map(|route| Effect::RouteAdd((*route).clone())).collect();
    // The kernel takes IPv6 addresses off what goes down (`addrconf_ifdown`), unless keep_addr_on_down is set.
    let lost = before.link(link.index).map_or(&[][..], |before| before.addresses.as_slice()).iter();
    let addresses: Vec<String> = lost
        .filter(|network| {
            network.address.is_ipv6() && !link.addresses.contains(network) && !is_link_local(network.address)
        })
        .map(|network| format!(" && ip -6 addr add {network} dev {name}"))
        .collect();
    let addresses = addresses.concat();
    Fix::run(
        format!("ip link set dev {name} up{addresses}{routes}"),
        format!("ip link set dev {name} down"),
        format!("Brings {} up; it is administratively down.", link.name),
    )
    .risk("Static routes and IPv6 addresses that the kernel removed when it went down, before this trace, have to be set again.")
    .persist(PERSIST_LINK)
    .setting(of(link, DeviceSetting::Up))
    .effect(Effect::Up(link.index, true))
    .effects(lost_effects)
}

/// `ip route add …`
pub fn route_command(verb: &str, route: &Route, device: &str) -> String {
    let family = if route.destination.address.is_ipv6() { " -6" } else { "" };
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    // 254 is `main`, which is meant where none is named.
    let table = if matches!(route.table, 0 | 254) { String::new() } else { format!(" table {}", route.table) };
    format!("ip{family} route {verb} {}{via} dev {}{table}", route.destination, quote(device))
}

/// Sets an address anew, so that duplicate address detection looks again.
pub fn set_again(link: &Link, address: crate::event::host::Network) -> Fix {
    let name = quote(&link.name);
    let why = format!("Sets {address} anew: it is used from then on, if no other machine has it any more.");
    Fix {
        command: Some(format!("ip -6 addr del {address} dev {name} && ip -6 addr add {address} dev {name}")),
        ..Fix::advice(why)
    }
    .risk("While another machine has the address, it stays unused: give that one another, or this host.")
    .persist("Find the machine that has the same address in its configuration.")
}

/// Sets a device's MTU.
pub fn mtu(link: &Link, mtu: u32, why: impl Into<String>) -> Fix {
    let name = quote(&link.name);
    Fix::run(format!("ip link set dev {name} mtu {mtu}"), format!("ip link set dev {name} mtu {}", link.mtu), why)
        .risk("The switch and everything behind it must carry frames of that size too; some NICs reset the link.")
        .persist(PERSIST_LINK)
        .setting(of(link, DeviceSetting::Mtu(mtu)))
        .effect(Effect::Mtu(link.index, mtu))
}

/// Sets the MTU of a device on the way to a guest. A bridge whose MTU nobody has set takes the smallest of its ports
/// (`br_mtu_auto_adjust`): then the guest's port has to carry as much, and comes first.
pub fn mtu_before(host: &HostState, link: &Link, port: Option<&Link>, mtu: u32, why: impl Into<String>) -> Fix {
    let fix = self::mtu(link, mtu, why);
    let narrow = port.filter(|port| port.master == Some(link.index) && port.mtu < mtu);
    let (Some(port), LinkKind::Bridge(_)) = (narrow, &link.kind) else { return fix };
    let set = |mtu: u32| format!("ip link set dev {} mtu {mtu}", quote(&port.name));
    let others = host.ports(link.index).filter(|other| other.index != port.index && other.mtu < mtu);
    let others: Vec<&str> = others.map(|other| other.name.as_str()).collect();
    let risk = if others.is_empty() {
        "The guest's own interface has to take packets of that size too.".to_owned()
    } else {
        format!("Ports with a smaller MTU drop what is larger, without a word: {}.", others.join(", "))
    };
    Fix {
        command: fix.command.map(|command| format!("{} && {command}", set(mtu))),
        undo: fix.undo.map(|undo| format!("{} && {undo}", set(port.mtu))),
        ..fix
    }
    .risk(risk)
    .setting(of(port, DeviceSetting::Mtu(mtu)))
    .effect(Effect::Mtu(port.index, mtu))
}

/// Takes the MTU off a route: the one of its device holds then.
pub fn route_mtu(route: &Route, device: &str, mtu: u32) -> Fix {
    let metric = Some(route.metric).filter(|metric| *metric > 0).map(|metric| format!(" metric {metric}"));
    let source = route.source.map(|source| format!(" src {source}")).unwrap_or_default();
    let rest = metric.unwrap_or_default() + &source;
    let change = route_command("change", route, device);
    Fix::run(
        format!("{change}{rest}"),
        format!("{change}{rest} mtu {mtu}"),
        format!("Takes the MTU of {mtu} off the route to {}.", route.destination),
    )
    .risk("Other attributes of the route (its protocol, a window, a lock of the MTU) are not kept.")
    .persist("Remove the MTU where the route is set (netplan, NetworkManager, ifupdown, systemd-networkd, a routing daemon).")
    .effect(Effect::RouteDelete(route.clone()))
    .effect(Effect::RouteAdd(Route { mtu: None, ..route.clone() }))
}

/// Makes a device a port of a bridge. One that is in use (a port of another, or with addresses of its own) is left to
/// whoever knows what it is for.
pub fn enslave(link: &Link, bridge: &Link, why: impl Into<String>) -> Fix {
    let name = quote(&link.name);
    let has_master = link.master.is_some_and(|master| master != bridge.index);
    if has_master || link.addresses.iter().any(|network| !is_link_local(network.address)) {
        let use_ = if has_master { "belongs to another device" } else { "has addresses of its own" };
        return Fix::advice(format!(
            "{} {use_} on this host: find out whether it is meant to be a port of {} before it is taken from there.",
            link.name, bridge.name
        ));
    }
    let undo = match link.master {
        Some(master) if master == bridge.index => format!("ip link set dev {name} master {}", quote(&bridge.name)),
        _ => format!("ip link set dev {name} nomaster"),
    };
    Fix::run(format!("ip link set dev {name} master {}", quote(&bridge.name)), undo, why)
        .persist(PERSIST_LINK)
        .setting(of(link, DeviceSetting::Bridge(bridge.name.clone())))
        .effect(Effect::Master(link.index, Some(bridge.index)))
}

/// Gives the addresses of a bridge's port to the bridge, and with them the routes by gateways; none where it has no address.
pub fn move_addresses(host: &HostState, port: &Link, bridge: &Link) -> Option<Fix> {
    let addresses: Vec<&Network> = port.addresses.iter().filter(|network| !is_link_local(network.address)).collect();
    let by_port = |route: &&Route| route.device == Some(port.index) && route.gateway.is_some() && route.table == MAIN;
    let routes: Vec<&Route> = host.routes.iter().filter(by_port).take(ROUTES + 1).collect();
    if addresses.is_empty() || routes.len() > ROUTES {
        return None;
    }
    // Added before it is taken away: with its last address a device loses its routes.
    let steps = |from: &Link, to: &Link| {
        let address = |verb: &str, network: &Network, device: &str, more: &str| {
            let family = if network.address.is_ipv6() { " -6" } else { "" };
            format!("ip{family} addr {verb} {network} dev {}{more}", quote(device))
        };
        let mut steps = Vec::new();
        for network in &addresses {
            let more = if network.address.is_ipv6() { " nodad" } else { "" };
            steps.push(address("add", network, &to.name, more));
        }
        steps.extend(addresses.iter().map(|network| address("del", network, &from.name, "")));
        steps.extend(routes.iter().map(|route| {
            let metric = if route.metric > 0 { format!(" metric {}", route.metric) } else { String::new() };
            format!("{}{metric}", route_command("replace", route, &to.name))
        }));
        steps.join(" && ")
    };
    let fix = Fix::run(
        steps(port, bridge),
        steps(bridge, port),
        format!("Moves what {} is called by to {}, where all ports hear it.", port.name, bridge.name),
    );
    Some(fix.risk("Paste it whole: between its steps the host may not be reached by these addresses.").persist(
        format!("Give the addresses to {} in the network configuration, and none to {}.", bridge.name, port.name),
    ))
}

/// Sets a flag of a bridge port: `isolated`, `locked`, `flood`, `learning`, …
pub fn port_flag(link: &Link, flag: &str, on: bool, why: impl Into<String>) -> Fix {
    let word = |on: bool| if on { "on" } else { "off" };
    let command = |on: bool| format!("bridge link set dev {} {flag} {}", quote(&link.name), word(on));
    Fix::run(command(on), command(!on), why)
        .persist(PERSIST_LINK)
        .setting(of(link, DeviceSetting::Port { flag: flag.to_owned(), on }))
        .effects(port_flag_effect(link, flag, on))
}

/// Lets a port forward a reserved group (01:80:c2:00:00:0X): what comes in by it, and nothing else of its bridge.
pub fn forward_group(port: &Link, group: u8, why: impl Into<String>) -> Fix {
    let before = port.port.as_ref().map_or(0, |flags| flags.group_forward_mask);
    let wanted = before | 1 << group.min(15);
    let command =
        |mask: u16| format!("ip link set dev {} type bridge_slave group_fwd_mask {mask:#x}", quote(&port.name));
    Fix::run(command(wanted), command(before), why)
        .persist(PERSIST_LINK)
        .effect(Effect::PortGroupForwardMask(port.index, wanted))
}

/// Sets a bridge's option by `ip link set dev … type bridge`.
pub fn bridge_option(bridge: &Link, option: &str, value: &str, before: &str, why: impl Into<String>) -> Fix {
    let command = |value: &str| format!("ip link set dev {} type bridge {option} {value}", quote(&bridge.name));
    let setting = DeviceSetting::Option { option: option.to_owned(), value: value.to_owned() };
    Fix::run(command(value), command(before), why)
        .persist(PERSIST_LINK)
        .setting(of(bridge, setting))
        .effects(option_effect(bridge, option, value))
}

/// Members of a group at most for which entries are made: on a larger bridge the ports have to be chosen.
const MEMBERS: usize = 16;

/// Makes ports members of one group, whose listeners were not heard to report (`br_mdb_add`): all other groups stay pruned.
pub fn group_members(bridge: &Link, ports: &[&Link], group: IpAddr, vlan: Option<u16>) -> Option<Fix> {
    if ports.is_empty() || ports.len() > MEMBERS {
        return None;
    }
    let vid = vlan.map(|vlan| format!(" vid {vlan}")).unwrap_or_default();
    let all = |verb: &str, between: &str| {
        let one = |port: &&Link| {
            let (bridge, port) = (quote(&bridge.name), quote(&port.name));
            format!("bridge mdb {verb} dev {bridge} port {port} grp {group} permanent{vid}")
        };
        ports.iter().map(one).collect::<Vec<_>>().join(between)
    };
    let names: Vec<String> = ports.iter().map(|port| port.name.clone()).collect();
    let names = crate::diagnose::words::list(&names);
    let why = format!("Sends {group}, and no other group, by {names}, as if a listener there had reported.");
    let fix = Fix::run(all("add", " && "), all("del", "; "), why).risk(format!(
        "{names} get all that anybody sends to {group}: leave out the ports behind which nobody listens."
    ));
    Some(fix.persist("The entries go with the ports: systemd-networkd sets them anew (section [BridgeMDB] of the port's .network file); for good, let the listeners report."))
}

fn port_flag_effect(link: &Link, flag: &str, on: bool) -> Option<Effect> {
    let flag = match flag {
        "isolated" => PortFlag::Isolated,
        "locked" => PortFlag::Locked,
        "flood" => PortFlag::Flood,
        "mcast_flood" => PortFlag::MulticastFlood,
        "bcast_flood" => PortFlag::BroadcastFlood,
        "learning" => PortFlag::Learning,
        "hairpin" => PortFlag::Hairpin,
        _ => return None,
    };
    Some(Effect::PortFlag(link.index, flag, on))
}

fn option_effect(bridge: &Link, option: &str, value: &str) -> Option<Effect> {
    let on = value != "0";
    let option = match option {
        "stp_state" => BridgeOption::Stp(on),
        "vlan_filtering" => BridgeOption::VlanFiltering(on),
        "mcast_snooping" => BridgeOption::Snooping(on),
        _ => return None,
    };
    Some(Effect::Bridge(bridge.index, option))
}

/// Brings macvtaps on one device into mode `bridge`, in which they hand each other frames (`macvlan_queue_xmit`); the mode of a
/// macvtap that runs may change, but not from or to `passthru` (`macvlan_changelink`).
pub fn bridge_macvtaps(links: &[&Link], why: impl Into<String>) -> Option<Fix> {
    let set =
        |link: &Link, mode: MacvtapMode| format!("ip link set dev {} type macvtap mode {mode}", quote(&link.name));
    let changed: Vec<&Link> =
        links.iter().copied().filter(|link| mode(link).is_some_and(|mode| mode != MacvtapMode::Bridge)).collect();
    let commands: Vec<String> = changed.iter().map(|link| set(link, MacvtapMode::Bridge)).collect();
    let undo: Option<Vec<String>> = changed.iter().map(|link| Some(set(link, mode(link)?))).collect();
    if changed.iter().any(|link| mode(link) == Some(MacvtapMode::Passthru)) || commands.is_empty() {
        return None;
    }
    let fix = Fix::run(commands.join(" && "), undo?.join(" && "), why)
        .effects(changed.iter().map(|link| Effect::MacvtapMode(link.index, MacvtapMode::Bridge)));
    Some(fix.persist(
        "libvirt: mode='bridge' in the interface's <source dev='…'/>, in the definition of each guest (virsh edit).",
    ))
}

/// Qdiscs with classes, each of which may have a qdisc of its own.
const CLASSFUL: &[&str] = &["htb", "hfsc", "drr", "qfq", "prio", "ets"];

/// Removes a root qdisc with all below it; the undo makes them again from what tc told: the root, its classes (twice, for
/// they are told in no order, and a class needs its parent), then the qdiscs of the classes.
fn classes_delete(name: &str, note: &str, qdisc: &Qdisc, why: impl Into<String>) -> Fix {
    let add = |what: &str, pattern: &str| format!("-e {}", quote(&format!("s/^{pattern}/{what}/p")));
    let root = add(
        &format!(r"qdisc add dev {name} root handle \2 \1 \3"),
        r"qdisc \([a-z_]*\) \([0-9a-f]*:\) root refcnt [0-9]* \(.*\)",
    );
    let top = add(
        &format!(r"class add dev {name} parent \2: classid \2:\3 \1 \4"),
        r"class \([a-z]*\) \([0-9a-f]*\):\([0-9a-f]*\) root \(.*\)",
    );
    let inner = add(
        &format!(r"class add dev {name} parent \3 classid \2 \1 \4"),
        r"class \([a-z]*\) \([0-9a-f:]*\) parent \([0-9a-f:]*\) \(.*\)",
    );
    let leaf = add(
        &format!(r"qdisc add dev {name} parent \3 handle \2 \1 \4"),
        r"qdisc \([a-z_]*\) \([1-9a-f][0-9a-f]*:\) parent \([0-9a-f:]*\) \(.*\)",
    );
    let clean = quote(
        r"s/ leaf [0-9a-f]*://; s/ direct_packets_stat.*//; s/limit \([0-9]*\)p/limit \1/; s/lat 0us/latency 400ms/",
    );
    let classes = format!("sed -n {top} {inner} {note}");
    let undo = format!(
        "{{ sed -n {root} {note}; {classes}; {classes}; sed -n {leaf} {note}; }} | sed {clean} | tc -force -batch - 2>/dev/null; tc qdisc show dev {name} | grep -q {}",
        quote(&format!("^qdisc {} .* root", qdisc.kind))
    );
    let command =
        format!("{{ tc qdisc show dev {name}; tc class show dev {name}; }} > {note} && tc qdisc del dev {name} root");
    Fix::run(command, undo, why)
        .risk(format!("All classes of this {} go, also those that limit nobody; its filters are not restored by the undo (tc filter show dev {name} lists them).", qdisc.kind))
        .persist("Remove or raise the limit where it is set (libvirt: the interface's <bandwidth>; a tc script; the network configuration).")
    .effect(Effect::QdiscDelete(qdisc.device))
}

/// Gives a token bucket another burst; the rate stays. `setting`: its rate and limit in tc's words.
pub fn burst(link: &Link, setting: &str, before: u32, burst: u32) -> Fix {
    let set = |burst: u32| format!("tc qdisc change dev {} root tbf {setting} burst {burst}b", quote(&link.name));
    Fix::run(set(burst), set(before), format!("Whole packets pass {} then; its rate stays.", link.name))
        .persist("Raise the burst where the limit is set (libvirt: burst of the interface's <bandwidth>; a tc script).")
}

/// Removes a device's root qdisc.
pub fn qdisc_delete(link: &Link, qdisc: &Qdisc, why: impl Into<String>) -> Fix {
    let name = quote(&link.name);
    // tc prints what it would take as options: note it before it is gone, so that the undo is exact.
    let note = quote(&format!("/run/kvmtrace-qdisc-{}", link.name));
    if CLASSFUL.contains(&qdisc.kind.as_str()) {
        return classes_delete(&name, &note, qdisc, why);
    }
    let restore = r"s/^qdisc \([a-z_]*\) [0-9a-f]*: root refcnt [0-9]* \(.*\)/\1 \2/p";
    let undo = format!(
        "tc qdisc add dev {name} root $(sed -n {} {note} | sed 's/lat 0us/latency 400ms/; s/limit \\([0-9]*\\)p/limit \\1/')",
        quote(restore)
    );
    let command = format!("tc qdisc show dev {name} root > {note} && tc qdisc del dev {name} root");
    Fix::run(command, undo, why)
    .risk(format!("The {} limit of this device is gone; classes and filters below it are not restored by the undo.", qdisc.kind))
    .persist("Remove or raise the limit where it is set (libvirt: the interface's <bandwidth>; a tc script; the network configuration).")
    .effect(Effect::QdiscDelete(qdisc.device))
}

/// Switches it off.
pub fn large_receive_off(nic: &Link) -> Fix {
    let name = quote(&nic.name);
    Fix::run(
        format!("ethtool -K {name} lro off"),
        format!("ethtool -K {name} lro on"),
        format!("{} then hands on packets as they came; what GRO merges can be cut again.", nic.name),
    )
    .risk("Some NICs set their queues up anew: their traffic may pause for a moment.")
    .persist("Set it where the device is configured: netplan \"large-receive-offload: false\", NetworkManager ethtool.feature-lro off, systemd LargeReceiveOffload=no in [Link] of its .link file, ifupdown a line \"post-up\" with the command.")
    .setting(Setting::Device { device: nic.name.clone(), what: DeviceSetting::LargeReceiveOff })
}

/// Gives the macvtap the guest's address.
pub fn readdress(own: &Link, (mac, guest): (MacAddress, MacAddress)) -> Fix {
    let set = |mac: MacAddress| format!("ip link set dev {} address {mac}", quote(&own.name));
    Fix::run(set(guest), set(mac), format!("{} then takes what is sent to the guest.", own.name)).persist(
        "Give both one address where they are defined: the macvtap's, and the one of the guest's network card.",
    )
}

/// The cure for a dead link.
pub fn no_carrier_advice(link: &Link) -> Fix {
    Fix::advice(format!(
        "Check the cable of {} and the switch port at its other end: the link has no carrier.",
        link.name
    ))
}

/// Takes the program off. What is gone can't be put back from here.
pub fn detach_program(link: &Link) -> Fix {
    let flag = match link.xdp.as_deref() {
        Some("native") => "xdpdrv",
        Some("offload") => "xdpoffload",
        _ => "xdpgeneric",
    };
    let fix = Fix::run(
        format!("ip link set dev {} {flag} off", quote(&link.name)),
        String::new(),
        "Detaches the program that drops these packets.",
    )
    .risk("Whatever else the program does (filtering, load balancing) ends. It can't be put back from here: note `bpftool net show` first.")
    .persist("Stop the service that attaches it.");
    Fix { undo: None, ..fix }
}
