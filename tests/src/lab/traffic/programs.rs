//! The small programs that make the traffic: they run inside the lab's namespaces as subcommands of `lab`, and print
//! their facts as one line of JSON.

use super::Facts;
use super::{programs_claim as claim, programs_tcp as tcp, programs_udp as udp};
use crate::lab::bpf;
use crate::lab::raw::FrameSocket;
use crate::lab::relay;
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use std::io::{BufWriter, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

/// What one exchange is like.
#[derive(Clone, Debug, Args)]
pub struct Exchange {
    /// The server's address.
    #[arg(long)]
    pub address: IpAddr,
    /// The server's port.
    #[arg(long)]
    pub port: u16,
    /// Bytes of each datagram, or of the transfer.
    #[arg(long)]
    pub size: u32,
    /// How many datagrams or connections.
    #[arg(long)]
    pub count: u32,
    /// Milliseconds between two.
    #[arg(long)]
    pub interval: u64,
    /// Forbids or asks for fragments.
    #[arg(long)]
    pub df: Option<bool>,
    /// A new socket for each.
    #[arg(long)]
    pub fresh: bool,
    /// The server sends.
    #[arg(long)]
    pub down: bool,
    /// The device, for groups and frames.
    #[arg(long)]
    pub device: Option<String>,
}

impl Exchange {
    /// The same as command-line arguments.
    pub fn arguments(&self) -> Vec<String> {
        let mut arguments = vec![
            format!("--address={}", self.address),
            format!("--port={}", self.port),
            format!("--size={}", self.size),
            format!("--count={}", self.count),
            format!("--interval={}", self.interval),
        ];
        arguments.extend(self.df.map(|df| format!("--df={df}")));
        arguments.extend(self.device.as_ref().map(|device| format!("--device={device}")));
        arguments.extend(self.fresh.then(|| "--fresh".to_owned()));
        arguments.extend(self.down.then(|| "--down".to_owned()));
        arguments
    }

    /// Where to connect or send to.
    pub(super) fn target(&self) -> Result<SocketAddr> {
        Ok(match self.address {
            IpAddr::V4(address) => SocketAddrV4::new(address, self.port).into(),
            IpAddr::V6(address) => SocketAddrV6::new(address, self.port, 0, self.scope()?).into(),
        })
    }

    /// The index of the device, 0 where none is named.
    pub(super) fn scope(&self) -> Result<u32> {
        let Some(device) = &self.device else { return Ok(0) };
        nix::net::if_::if_nametoindex(device.as_str()).with_context(|| format!("no device {device}"))
    }
}

/// One small program.
#[derive(Debug, Subcommand)]
pub enum Program {
    /// Echoes datagrams.
    UdpEcho(Server),
    /// Sends datagrams and counts the echoes.
    UdpAsk(Exchange),
    /// Counts datagrams, also those of a group.
    UdpSink(Server),
    /// Sends datagrams.
    UdpSend(Exchange),
    /// Answers connections.
    TcpServe(Server),
    /// Makes connections.
    TcpAsk(Exchange),
    /// Sends ARP requests as fast as they go.
    ArpStorm(Exchange),
    /// Prints entries for `conntrack -R`: enough to fill the table with flows that count as assured.
    ConntrackEntries {
        /// How many.
        count: u32,
    },
    /// Sends frames of a made-up kind.
    Frames {
        /// The sending device.
        #[arg(long)]
        device: String,
        /// The destination's MAC.
        #[arg(long)]
        to: String,
        /// The `EtherType`, hexadecimal.
        #[arg(long)]
        ethertype: String,
        /// How many.
        #[arg(long)]
        count: u32,
    },
    /// Sends UDP packets each of which is a flow of its own: a made-up source address and port.
    FlowFlood {
        /// The sending device.
        #[arg(long)]
        device: String,
        /// The destination's MAC.
        #[arg(long)]
        to: String,
        /// How many.
        #[arg(long)]
        count: u32,
        /// The number of the first: other numbers are other flows.
        #[arg(long, default_value_t = 0)]
        first: u32,
        /// Packets per second; as fast as they go without.
        #[arg(long)]
        rate: Option<u32>,
    },
    /// Sends whole frames as they are given, in hexadecimal, each of them once a round.
    RawFrames {
        /// The sending device.
        #[arg(long)]
        device: String,
        /// Rounds.
        #[arg(long)]
        count: u32,
        /// Milliseconds between two rounds.
        #[arg(long)]
        interval: u64,
        /// The frames.
        #[arg(long = "frame")]
        frames: Vec<String>,
    },
    /// Says that an address is its own, again and again.
    Claim {
        /// The sending device.
        #[arg(long)]
        device: String,
        /// The address.
        #[arg(long)]
        address: IpAddr,
        /// Milliseconds between two.
        #[arg(long, default_value_t = 20)]
        interval: u64,
    },
    /// Says that it is a router, again and again.
    Advertise {
        /// The sending device.
        #[arg(long)]
        device: String,
        /// An address of the /64 in which machines may make themselves one.
        #[arg(long)]
        prefix: Ipv6Addr,
        /// Milliseconds between two.
        #[arg(long, default_value_t = 300)]
        interval: u64,
    },
    /// Carries packets between the tun devices of one name here and in another namespace: a VPN.
    TunPair {
        /// The device.
        #[arg(long)]
        device: String,
        /// The other namespace.
        #[arg(long)]
        namespace: String,
    },
    /// Pins a BPF program that drops everything.
    PinDrop {
        /// Where it will be attached.
        #[arg(long)]
        kind: bpf::Kind,
        /// Where it is pinned.
        path: PathBuf,
    },
    /// Holds a UDP port with a small buffer and never reads.
    UdpStuck(Stuck),
    /// Listens with a backlog of one and never accepts.
    TcpStuck(Stuck),
}

/// A server, which makes a file once it listens.
#[derive(Clone, Debug, Args)]
pub struct Server {
    /// What it serves.
    #[command(flatten)]
    pub exchange: Exchange,
    /// Made once it listens.
    #[arg(long)]
    pub ready: PathBuf,
}

impl Server {
    /// Tells that it listens.
    pub(super) fn is_ready(&self) -> Result<()> {
        std::fs::write(&self.ready, "").with_context(|| format!("cannot write {}", self.ready.display()))
    }
}

/// A program that holds a port badly.
#[derive(Clone, Debug, Args)]
pub struct Stuck {
    /// Where.
    #[arg(long)]
    pub address: IpAddr,
    /// The port.
    #[arg(long)]
    pub port: u16,
}

impl Program {
    /// Runs it to its end; the facts, where it has some.
    pub fn run(&self) -> Result<Option<Facts>> {
        match self {
            Self::UdpEcho(server) => udp::echo(server).map(|()| None),
            Self::UdpAsk(exchange) => udp::ask(exchange).map(Some),
            Self::UdpSink(server) => udp::sink(server).map(Some),
            Self::UdpSend(exchange) => udp::send(exchange).map(Some),
            Self::UdpStuck(stuck) => udp::stuck(stuck).map(|()| None),
            Self::TcpServe(server) => tcp::serve(server).map(|()| None),
            Self::TcpAsk(exchange) => tcp::ask(exchange).map(Some),
            Self::TcpStuck(stuck) => tcp::stuck(stuck).map(|()| None),
            Self::ConntrackEntries { count } => conntrack_entries(*count).map(|()| None),
            Self::Frames { device, to, ethertype, count } => frames(device, to, ethertype, *count).map(Some),
            Self::FlowFlood { device, to, count, first, rate } => {
                flow_flood(device, to, *first..first.saturating_add(*count), *rate).map(Some)
            }
            Self::RawFrames { device, count, interval, frames } => {
                raw_frames(device, *count, *interval, frames).map(Some)
            }
            Self::Advertise { device, prefix, interval } => claim::advertise(device, *prefix, *interval).map(|()| None),
            Self::Claim { device, address, interval } => claim::claim(device, *address, *interval).map(|()| None),
            Self::TunPair { device, namespace } => relay::join_tun_devices(device, namespace).map(|()| None),
            Self::PinDrop { kind, path } => bpf::pin_drop(*kind, path).map(|()| None),
            Self::ArpStorm(exchange) => arp_storm(exchange).map(Some),
        }
    }
}

/// Writes entries on standard output; the kernel keeps assured flows when the table is full.
fn conntrack_entries(count: u32) -> Result<()> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    for number in 0..count {
        let ([_, high, low, _], port) = ((number << 8).to_be_bytes(), 1000 + number % 50000);
        let (source, destination) = (format!("100.64.{high}.{low}"), format!("100.65.{}.1", number >> 16));
        writeln!(
            out,
            "-A -p udp -s {source} -d {destination} --sport {port} --dport 9 -r {destination} -q {source} \
             --reply-port-src 9 --reply-port-dst {port} -t 900 -u SEEN_REPLY,ASSURED"
        )?;
    }
    Ok(())
}

/// Sends given frames.
fn raw_frames(device: &str, count: u32, interval: u64, frames: &[String]) -> Result<Facts> {
    let byte = |text: &[u8]| u8::from_str_radix(std::str::from_utf8(text)?, 16).context("no hexadecimal number");
    let frames: Vec<Vec<u8>> =
        frames.iter().map(|text| text.as_bytes().chunks(2).map(byte).collect()).collect::<Result<_>>()?;
    let socket = FrameSocket::open(device)?;
    let mut sent = 0;
    for _ in 0..count {
        for frame in &frames {
            socket.send(frame)?;
            sent += 1;
        }
        std::thread::sleep(Duration::from_millis(interval));
    }
    Ok(Facts { sent, received: sent, connected: 0 })
}

/// Sends frames with no meaning inside.
fn frames(device: &str, to: &str, ethertype: &str, count: u32) -> Result<Facts> {
    let kind = u16::from_str_radix(ethertype, 16).context("an EtherType is four hexadecimal digits")?;
    let frame = [&mac(to), &own_mac(device)?, &kind.to_be_bytes()[..], &[0; 46]].concat();
    let socket = FrameSocket::open(device)?;
    let sent = (0..count).filter(|_| socket.send(&frame).is_ok()).count() as u32;
    Ok(Facts { sent, received: sent, connected: 0 })
}

/// Packets that a flood with a rate sends at once.
const BURST: u32 = 16;

/// Sends IPv4 UDP packets to 203.0.113.9 from 100.64.0.0/10, no two of one flow.
fn flow_flood(device: &str, to: &str, numbers: Range<u32>, rate: Option<u32>) -> Result<Facts> {
    let mut frame = [&mac(to), &own_mac(device)?, &[8, 0][..]].concat();
    frame.extend([0x45, 0, 0, 46, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 203, 0, 113, 9]);
    frame.extend([0, 0, 0, 9, 0, 26, 0, 0]);
    frame.resize(60, 0);
    let socket = FrameSocket::open(device)?;
    let mut sent = 0;
    for number in numbers {
        if let Some(rate) = rate.filter(|_| number.is_multiple_of(BURST)) {
            std::thread::sleep(Duration::from_secs(1) * BURST / rate.max(1));
        }
        let source = 0x6440_0000_u32 | number >> 8 & 0x003f_ffff;
        frame[26..30].copy_from_slice(&source.to_be_bytes());
        frame[34..36].copy_from_slice(&(1_024 + (number & 0xff) as u16).to_be_bytes());
        sent += u32::from(socket.send(&frame).is_ok());
    }
    Ok(Facts { sent, received: sent, connected: 0 })
}

/// The MAC address of a device.
pub(super) fn own_mac(device: &str) -> Result<Vec<u8>> {
    Ok(mac(std::fs::read_to_string(format!("/sys/class/net/{device}/address"))?.trim()))
}

fn mac(text: &str) -> Vec<u8> {
    text.split(':').filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect()
}

/// Broadcasts ARP requests from a device, each for the same address.
fn arp_storm(exchange: &Exchange) -> Result<Facts> {
    let device = exchange.device.as_deref().context("a device is needed")?;
    let mac = own_mac(device)?;
    let IpAddr::V4(target) = exchange.address else { anyhow::bail!("ARP is IPv4's") };
    let mut sender = target.octets();
    sender[3] = 222;
    let frame = [
        &[0xff; 6][..],
        &mac,
        &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1],
        &mac,
        &sender,
        &[0; 6],
        &target.octets(),
        &[0; 18],
    ]
    .concat();
    let socket = FrameSocket::open(device)?;
    let sent = (0..exchange.count).filter(|_| socket.send(&frame).is_ok()).count() as u32;
    Ok(Facts { sent, received: sent, connected: 0 })
}
