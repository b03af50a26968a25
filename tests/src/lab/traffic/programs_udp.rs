//! UDP programs.

use super::Facts;
use super::programs::{Exchange, Server, Stuck};
use anyhow::{Context as _, Result};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::thread;
use std::time::{Duration, Instant};

/// How long the last echo may take.
const PATIENCE: Duration = Duration::from_millis(700);
/// How long a sink waits for the next datagram, once the sender should be done.
const SILENCE: Duration = Duration::from_secs(1);
/// A server that nobody ended ends itself.
const LIFETIME: Duration = Duration::from_hours(1);

/// Sends datagrams back.
pub(super) fn echo(server: &Server) -> Result<()> {
    let socket = bind(server.exchange.address, server.exchange.port)?;
    server.is_ready()?;
    socket.set_read_timeout(Some(LIFETIME))?;
    let mut datagram = vec![0; 65536];
    while let Ok((length, peer)) = socket.recv_from(&mut datagram) {
        // An answer that cannot be sent is one that does not arrive.
        socket.send_to(&datagram[..length], peer).ok();
    }
    Ok(())
}

/// Sends datagrams, counts the echoes.
pub(super) fn ask(exchange: &Exchange) -> Result<Facts> {
    let target = exchange.target()?;
    let mut facts = Facts { sent: exchange.count, ..Facts::default() };
    if exchange.fresh {
        for number in 0..exchange.count {
            let socket = open(exchange, target)?;
            socket.send(&datagram(exchange, number)).ok();
            socket.set_read_timeout(Some(Duration::from_millis(300)))?;
            facts.received += u32::from(socket.recv(&mut vec![0; 65536]).is_ok());
        }
        return Ok(facts);
    }
    let socket = open(exchange, target)?;
    let listening = socket.try_clone()?;
    let end = Instant::now() + Duration::from_millis(exchange.interval * u64::from(exchange.count)) + PATIENCE;
    let expected = exchange.count;
    let listener = thread::spawn(move || count(&listening, expected, end));
    for number in 0..exchange.count {
        // A refusal of an earlier datagram is told here: this one was not sent by then.
        if socket.send(&datagram(exchange, number)).is_err() {
            socket.send(&datagram(exchange, number)).ok();
        }
        thread::sleep(Duration::from_millis(exchange.interval));
    }
    facts.received = listener.join().unwrap_or(0);
    Ok(facts)
}

/// Sends datagrams.
pub(super) fn send(exchange: &Exchange) -> Result<Facts> {
    let socket = open(exchange, exchange.target()?)?;
    // What does not fit the sender's own buffer is lost, too: it must not wait for a path that is stuck.
    socket.set_nonblocking(true)?;
    for number in 0..exchange.count {
        socket.send(&datagram(exchange, number)).ok();
        if exchange.interval > 0 {
            thread::sleep(Duration::from_millis(exchange.interval));
        }
    }
    Ok(Facts { sent: exchange.count, ..Facts::default() })
}

/// Counts datagrams until all are there or none comes any more.
pub(super) fn sink(server: &Server) -> Result<Facts> {
    let exchange = &server.exchange;
    let socket = if exchange.address.is_multicast() {
        let any = if exchange.address.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { "::".parse()? };
        let socket = bind(any, exchange.port)?;
        match exchange.address {
            IpAddr::V4(group) => socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?,
            IpAddr::V6(group) => socket.join_multicast_v6(&group, exchange.scope()?)?,
        }
        socket
    } else {
        bind(exchange.address, exchange.port)?
    };
    server.is_ready()?;
    let sending = Duration::from_millis(exchange.interval * u64::from(exchange.count));
    let received = count(&socket, exchange.count, Instant::now() + sending + SILENCE);
    Ok(Facts { sent: exchange.count, received, connected: 0 })
}

/// Holds a port, with a buffer for a few datagrams that are never read.
pub(super) fn stuck(stuck: &Stuck) -> Result<()> {
    let socket = bind(stuck.address, stuck.port)?;
    setsockopt(&socket, sockopt::RcvBuf, &1)?;
    thread::sleep(LIFETIME);
    drop(socket);
    Ok(())
}

fn count(socket: &UdpSocket, expected: u32, end: Instant) -> u32 {
    let mut received = 0;
    let mut datagram = vec![0; 65536];
    while received < expected {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() || socket.set_read_timeout(Some(left)).is_err() {
            break;
        }
        match socket.recv(&mut datagram) {
            Ok(_) => received += 1,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {}
            Err(_) => break,
        }
    }
    received
}

fn bind(address: IpAddr, port: u16) -> Result<UdpSocket> {
    UdpSocket::bind((address, port)).with_context(|| format!("cannot bind UDP {address} port {port}"))
}

fn open(exchange: &Exchange, target: SocketAddr) -> Result<UdpSocket> {
    let any: IpAddr = if target.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { "::".parse()? };
    let socket = bind(any, 0)?;
    if let Some(df) = exchange.df {
        let (level, option) = if target.is_ipv4() {
            (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER)
        } else {
            (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER)
        };
        let value: libc::c_int = if df { libc::IP_PMTUDISC_DO } else { libc::IP_PMTUDISC_DONT };
        let length = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the descriptor is open, and the kernel reads one int.
        let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, (&raw const value).cast(), length) };
        nix::errno::Errno::result(result).context("cannot set path MTU discovery")?;
    }
    // No route is a failure of the traffic, not of the program: the datagrams will fail one by one.
    socket.connect(target).ok();
    Ok(socket)
}

fn datagram(exchange: &Exchange, number: u32) -> Vec<u8> {
    let mut bytes = vec![0x5a; exchange.size as usize];
    for (target, source) in bytes.iter_mut().zip(number.to_be_bytes()) {
        *target = source;
    }
    bytes
}
