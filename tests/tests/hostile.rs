//! A guest attacks while two neighbours work. After each attack no command stands in the report that changes anything but the
//! attacker's own port, and what is said of the neighbours is right: their packets arrived.

#![allow(clippy::print_stdout, reason = "a skip is printed")]

use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::{Options, Topology};
use kvmtrace_tests::lab::process::Background;
use kvmtrace_tests::lab::{Lab, can_test, lab_binary};
use kvmtrace_tests::product::{Product, Verdict};
use serde_json::Value;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Who takes part: MAC and IPv4 addresses.
#[derive(Clone)]
struct End {
    mac: [u8; 6],
    ip: Ipv4Addr,
}

/// The network as the attacker sees it.
struct Net {
    own: End,
    first: End,
    second: End,
    host: End,
    lan: End,
}

const ALL: [u8; 6] = [0xff; 6];

fn mac(text: &str) -> Result<[u8; 6]> {
    let bytes: Vec<u8> = text.split(':').map(|byte| u8::from_str_radix(byte, 16)).collect::<Result<_, _>>()?;
    bytes.try_into().ok().context("no MAC address")
}

fn sum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
    let sum: u32 = bytes.chunks(2).map(word).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    (!((folded & 0xffff) + (folded >> 16)) as u16).to_be_bytes()
}

fn ethernet(to: [u8; 6], from: [u8; 6], kind: u16, body: &[u8]) -> Vec<u8> {
    [&to[..], &from, &kind.to_be_bytes(), body].concat()
}

fn ip(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    ip_for(64, from, to, protocol, flags, body)
}

/// A packet that lives for so many hops.
fn ip_for(hops: u8, from: Ipv4Addr, to: Ipv4Addr, protocol: u8, flags: u16, body: &[u8]) -> Vec<u8> {
    let length = (20 + body.len() as u16).to_be_bytes();
    let mut header = [&[0x45, 0][..], &length, &[0, 1], &flags.to_be_bytes(), &[hops, protocol, 0, 0]].concat();
    header.extend([from.octets(), to.octets()].concat());
    let check = sum(&header);
    header[10..12].copy_from_slice(&check);
    [header, body.to_vec()].concat()
}

fn udp(from: u16, to: u16, body: &[u8]) -> Vec<u8> {
    let length = (8 + body.len() as u16).to_be_bytes();
    [&from.to_be_bytes()[..], &to.to_be_bytes(), &length, &[0, 0], body].concat()
}

fn icmp(kind: u8, code: u8, rest: u32, body: &[u8]) -> Vec<u8> {
    let mut message = [&[kind, code, 0, 0][..], &rest.to_be_bytes(), body].concat();
    let check = sum(&message);
    message[2..4].copy_from_slice(&check);
    message
}

fn reset(from: Ipv4Addr, to: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    let mut segment =
        [&ports.0.to_be_bytes()[..], &ports.1.to_be_bytes(), &[0; 8], &[0x50, 0x14, 0, 0, 0, 0, 0, 0]].concat();
    let check = sum(&[&from.octets()[..], &to.octets(), &[0, 6, 0, 20], &segment].concat());
    segment[16..18].copy_from_slice(&check);
    segment
}

fn arp(operation: u16, sender: &End, target_mac: [u8; 6], target: Ipv4Addr) -> Vec<u8> {
    let head = [0, 1, 8, 0, 6, 4];
    [&head[..], &operation.to_be_bytes(), &sender.mac, &sender.ip.octets(), &target_mac, &target.octets(), &[0; 18]]
        .concat()
}

/// A name, and the frames of a round.
type Attack = (&'static str, fn(&Net) -> Vec<Vec<u8>>);

const ATTACKS: &[Attack] = &[
    ("sends as a neighbour", |net| {
        let datagram = ip(net.second.ip, net.first.ip, 17, 0, &udp(5555, 53, &[0; 26]));
        vec![ethernet(net.first.mac, net.own.mac, 0x800, &datagram)]
    }),
    ("sends as nobody, by the host", |net| {
        let datagram = ip([198, 51, 100, 77].into(), net.lan.ip, 17, 0, &udp(5555, 53, &[0; 26]));
        vec![ethernet(net.host.mac, net.own.mac, 0x800, &datagram)]
    }),
    ("sends as the host and as the loopback address", |net| {
        let from = |ip_from| ip(ip_from, net.lan.ip, 17, 0, &udp(53, 5555, &[0; 26]));
        let frames = [net.host.ip, Ipv4Addr::LOCALHOST]
            .map(|address| ethernet(net.host.mac, net.own.mac, 0x800, &from(address)));
        frames.into()
    }),
    ("asks from an address of another network", |net| {
        let stranger = End { mac: net.own.mac, ip: [192, 0, 2, 5].into() };
        vec![ethernet(ALL, net.own.mac, 0x806, &arp(1, &stranger, [0; 6], [192, 0, 2, 1].into()))]
    }),
    ("forges errors about a neighbour's packets", |net| {
        let quoted = ip(net.first.ip, net.second.ip, 1, 0, &[8, 0, 0, 0, 0x12, 0x34, 0, 1]);
        let error = |kind, code, rest| {
            let message = ip(net.host.ip, net.first.ip, 1, 0, &icmp(kind, code, rest, &quoted));
            ethernet(net.first.mac, net.own.mac, 0x800, &message)
        };
        vec![error(3, 1, 0), error(3, 4, 576), error(11, 0, 0)]
    }),
    ("forges resets", |net| {
        let segment = ip(net.second.ip, net.first.ip, 6, 0, &reset(net.second.ip, net.first.ip, (80, 40_000)));
        let beyond = ip(net.lan.ip, net.second.ip, 6, 0, &reset(net.lan.ip, net.second.ip, (443, 41_000)));
        vec![
            ethernet(net.first.mac, net.own.mac, 0x800, &segment),
            ethernet(net.second.mac, net.own.mac, 0x800, &beyond),
        ]
    }),
    ("takes the MAC address of the host", |net| {
        let datagram = ip(net.host.ip, net.lan.ip, 17, 0, &udp(53, 5555, &[0; 26]));
        vec![ethernet([0x52, 0x54, 0, 0, 0, 0x99], net.host.mac, 0x800, &datagram)]
    }),
    ("sends to the loopback address and to no one", |net| {
        let to = |address: [u8; 4]| {
            ethernet(net.host.mac, net.own.mac, 0x800, &ip(net.own.ip, address.into(), 17, 0, &udp(53, 5555, &[0; 26])))
        };
        vec![to([127, 0, 0, 1]), to([0, 0, 0, 7]), to([240, 1, 1, 1])]
    }),
    ("offers leases and routes", |net| {
        let offer = ip(net.own.ip, Ipv4Addr::BROADCAST, 17, 0, &udp(67, 68, &[2; 300]));
        vec![ethernet(ALL, net.own.mac, 0x800, &offer)]
    }),
    ("lets packets with a neighbour's own keys die", |net| {
        let ping = icmp(8, 0, u32::from(PING) << 16 | 1, &[0; 56]);
        let hop = ip_for(1, net.second.ip, net.lan.ip, 1, 0, &ping);
        let large = ip(net.second.ip, net.lan.ip, 1, 0x4000, &icmp(8, 0, u32::from(PING) << 16 | 2, &[0; 2_400]));
        vec![ethernet(net.host.mac, net.own.mac, 0x800, &hop), ethernet(net.host.mac, net.own.mac, 0x800, &large)]
    }),
    ("sends pieces that contradict each other", |net| {
        let piece = |flags, body: &[u8]| {
            ethernet(net.host.mac, net.own.mac, 0x800, &ip(net.own.ip, net.host.ip, 17, flags, body))
        };
        vec![piece(0x2000, &udp(1, 53, &[0; 992])), piece(0x2010, &[1; 1_000]), piece(0x2064, &[2; 512])]
    }),
    ("sends as all machines of its network", |net| {
        let [a, b, c, _] = net.own.ip.octets();
        let datagram = ip([a, b, c, 255].into(), net.lan.ip, 17, 0, &udp(5, 6, &[0; 26]));
        vec![ethernet(net.host.mac, net.own.mac, 0x800, &datagram)]
    }),
    ("sends to reserved groups, and what nobody here takes", |net| {
        let to_host = |kind, body: &[u8]| ethernet(net.host.mac, net.own.mac, kind, body);
        let protocol = |number| to_host(0x800, &ip(net.own.ip, net.host.ip, number, 0, &[0; 64]));
        let mut frames: Vec<Vec<u8>> =
            [0x0e, 3, 0].map(|group| ethernet([1, 0x80, 0xc2, 0, 0, group], net.own.mac, 0x88cc, &[0; 46])).into();
        frames.extend([47, 50, 4].map(protocol));
        frames.extend([to_host(0x8847, &[0; 50]), to_host(0x8863, &[0; 50]), to_host(0x800, &[0x41; 31])]);
        frames
    }),
    ("tags its frames", |net| {
        let datagram = ip(net.own.ip, net.first.ip, 17, 0, &udp(53, 5555, &[0; 26]));
        let tagged = [&[0, 7, 8, 0][..], &datagram].concat();
        vec![
            ethernet(net.first.mac, net.own.mac, 0x8100, &tagged),
            ethernet(net.first.mac, net.own.mac, 0x88a8, &tagged),
        ]
    }),
];

/// The identifier of the second neighbour's pings to the LAN.
const PING: u16 = 4_242;

/// What the host does against such guests.
#[derive(Clone, Copy, Debug)]
enum Guard {
    Nothing,
    AntiSpoofing,
    ReversePath,
}

fn guard(lab: &Lab, guard: Guard, net: &Net, tap: &str) -> Result<()> {
    match guard {
        Guard::Nothing => Ok(()),
        Guard::AntiSpoofing => lab.host.nft(&format!(
            "table bridge antispoof {{ chain own {{ type filter hook prerouting priority -200;\n\
             iifname \"{tap}\" ip saddr != {0} drop; iifname \"{tap}\" arp saddr ip != {0} drop;\n}}\n}}",
            net.own.ip
        )),
        Guard::ReversePath => lab.host.sysctl(&["net.ipv4.conf.all.rp_filter=1"]),
    }
}

fn pings(lab: &Lab, from: usize, to: Ipv4Addr) -> Result<Background> {
    lab.guests[from].namespace.background(&format!("ping -nq -e {PING} -i 0.1 -c 12 -W 1 {to}"))
}

/// Runs an attack while the neighbours ping each other, the host and the LAN.
fn attacked(lab: &Lab, product: &Product, net: &Net, frames: &[Vec<u8>]) -> Result<Verdict> {
    let attacker = &lab.guests[0];
    let mut command = attacker.namespace.command(lab_binary()?);
    command.args([
        "program",
        "raw-frames",
        "--device",
        &attacker.plan.port.device,
        "--count",
        "14",
        "--interval",
        "70",
    ]);
    for frame in frames {
        command.args(["--frame", &hex(frame)]);
    }
    let ((), verdict) = product.verdict(lab, &[], || {
        let mut working = [(1, net.second.ip), (2, net.lan.ip), (1, net.host.ip)]
            .map(|(from, to)| pings(lab, from, to))
            .into_iter()
            .collect::<Result<Vec<_>>>()?;
        working.push(Background::start(&mut command)?);
        for one in working {
            one.finish(Duration::from_secs(10))?;
        }
        Ok(())
    })?;
    Ok(verdict)
}

fn hex(frame: &[u8]) -> String {
    let mut text = String::new();
    for byte in frame {
        write!(text, "{byte:02x}").expect("a string takes what is written");
    }
    text
}

fn text<'a>(item: &'a Value, key: &str) -> &'a str {
    item[key].as_str().unwrap_or_default()
}

/// Commands that name anything but the attacker's port, and neighbours that are said to suffer.
fn faults(lab: &Lab, verdict: &Verdict) -> Vec<String> {
    let attacker = &lab.guests[0].plan;
    let others: Vec<&str> = lab.guests[1..].iter().map(|guest| guest.plan.name.as_str()).collect();
    let mut faults = Vec::new();
    for item in verdict.items() {
        for command in item["fixes"].as_array().into_iter().flatten().filter_map(|fix| fix["command"].as_str()) {
            if !command.contains(&attacker.tap) {
                faults.push(format!("{} proposes {command}", item["cause"]));
            }
        }
        let suffers = text(item, "severity") != "ok" && others.contains(&text(item, "guest"));
        let from_neighbour = item["protocol"] == "icmp" && item["source"] != item["destination"];
        if suffers && from_neighbour && !text(item, "cause").is_empty() {
            faults.push(format!("{} is said to suffer: {} {}", item["guest"], item["cause"], item["explanation"]));
        }
    }
    faults
}

/// All attacks on a host with this guard.
fn no_attack_harms_another(kind: Guard) -> Result<()> {
    if !can_test("hostile")? {
        return Ok(());
    }
    let seed = Seed::choose()?;
    let options = Options { guests: 3, topology: Topology::Routed, ..Options::default() };
    let product = Product::find()?;
    let lab = Lab::drawn(&options, seed, "hostile").with_context(|| format!("seed {seed}"))?;
    let end = |port: &kvmtrace_tests::lab::plan::Port| anyhow::Ok(End { mac: mac(&port.mac)?, ip: port.addresses.v4 });
    let guests = &lab.guests;
    let net = Net {
        own: end(&guests[0].plan.port)?,
        first: end(&guests[1].plan.port)?,
        second: end(&guests[2].plan.port)?,
        host: end(&lab.plan.host)?,
        lan: end(&lab.plan.lan)?,
    };
    guard(&lab, kind, &net, &guests[0].plan.tap)?;
    // The host has met its guests before.
    for guest in guests {
        guest.namespace.check(&format!("ping -nq -c 2 -i 0.2 -W 1 {}", net.host.ip))?;
    }
    let mut wrong = Vec::new();
    for (name, frames) in ATTACKS {
        let verdict = attacked(&lab, &product, &net, &frames(&net)).with_context(|| format!("{name}, {kind:?}"))?;
        wrong.extend(faults(&lab, &verdict).into_iter().map(|fault| format!("{name}, {kind:?}: {fault}")));
    }
    ensure!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
    Ok(())
}

#[test]
fn no_attack_of_a_guest_makes_a_command_that_harms_another() -> Result<()> {
    no_attack_harms_another(Guard::Nothing)
}

#[test]
fn nor_does_one_behind_rules_against_false_sources() -> Result<()> {
    no_attack_harms_another(Guard::AntiSpoofing)
}

#[test]
fn nor_does_one_behind_a_reverse_path_filter() -> Result<()> {
    no_attack_harms_another(Guard::ReversePath)
}
