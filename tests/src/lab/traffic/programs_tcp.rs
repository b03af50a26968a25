//! TCP programs. A connection begins with eight bytes: how much the client sends, how much the server does.

use super::Facts;
use super::programs::{Exchange, Server, Stuck};
use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket, sockopt,
};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_millis(1500);
/// How long a transfer may stand still.
const STALL: Duration = Duration::from_secs(2);
/// A server that nobody ended ends itself.
const LIFETIME: Duration = Duration::from_hours(1);

/// Serves connections until killed.
pub(super) fn serve(server: &Server) -> Result<()> {
    let target = (server.exchange.address, server.exchange.port);
    let listener = TcpListener::bind(target).with_context(|| format!("cannot listen on {target:?}"))?;
    server.is_ready()?;
    for stream in listener.incoming() {
        let stream = stream?;
        // A connection that breaks is the client's fact.
        thread::spawn(move || answer(stream).ok());
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_read_timeout(Some(LIFETIME))?;
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let [up, down] =
        [&head[..4], &head[4..]].map(|half| half.iter().fold(0_u32, |sum, &byte| sum << 8 | u32::from(byte)));
    std::io::copy(&mut (&mut stream).take(up.into()), &mut std::io::sink())?;
    stream.write_all(&vec![0x5a; down as usize])?;
    Ok(())
}

/// Makes connections, one after the other; counts those that carried everything.
pub(super) fn ask(exchange: &Exchange) -> Result<Facts> {
    let target = exchange.target()?;
    let mut facts = Facts { sent: exchange.count, ..Facts::default() };
    let end = Instant::now() + Duration::from_secs(8);
    for _ in 0..exchange.count {
        if Instant::now() > end {
            break;
        }
        if let Ok(stream) = TcpStream::connect_timeout(&target, CONNECT) {
            facts.connected += 1;
            facts.received += u32::from(transfer(stream, exchange).is_ok());
        }
    }
    Ok(facts)
}

fn transfer(mut stream: TcpStream, exchange: &Exchange) -> Result<()> {
    stream.set_read_timeout(Some(STALL))?;
    stream.set_write_timeout(Some(STALL))?;
    // One byte in the other direction says that all has arrived.
    let (up, down) = if exchange.down { (1, exchange.size) } else { (exchange.size, 1) };
    let mut message = [up.to_be_bytes(), down.to_be_bytes()].concat();
    message.resize(8 + up as usize, 0x5a);
    stream.write_all(&message)?;
    let mut answer = vec![0; down as usize];
    stream.read_exact(&mut answer)?;
    Ok(())
}

/// Listens with the smallest backlog and never accepts.
pub(super) fn stuck(stuck: &Stuck) -> Result<()> {
    let target = SocketAddr::new(stuck.address, stuck.port);
    let family = if target.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &SockaddrStorage::from(target))?;
    listen(&socket, Backlog::new(0)?)?;
    thread::sleep(LIFETIME);
    Ok(())
}
