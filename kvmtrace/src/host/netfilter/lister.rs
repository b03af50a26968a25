//! The lister: a process of kvmtrace's own that runs the firewall's tools, for the tracer itself can start no program once it
//! has given up its privileges.
//!
//! It keeps the capabilities that listing needs and no other. Its standard input and output are two sockets, so that two
//! listings go side by side. A request is a [`Listing`] as a line of JSON, an answer a [`Reply`] as a line of JSON and as
//! many bytes as it says. It ends when both sockets are closed.

use super::command;
use super::listing::Listing;
use crate::kernel::privilege;
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream as Socket;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::sync::Mutex;

/// The name that this process calls itself by to become the lister.
const NAME: &str = "kvmtrace-rules";
/// A request is shorter.
const LONGEST_REQUEST: u64 = 4096;

static LISTER: OnceLock<Lister> = OnceLock::new();

/// The tracer's end.
#[derive(Debug)]
pub(super) struct Lister {
    lanes: [Arc<Mutex<BufReader<UnixStream>>>; 2],
    next: AtomicUsize,
}

/// What goes before the listing, or before why there is none.
#[derive(Debug, Serialize, Deserialize)]
struct Reply {
    listed: bool,
    bytes: u64,
}

/// Starts it: from here on listings are asked from it.
pub fn start() -> io::Result<()> {
    if LISTER.get().is_some() {
        return Ok(());
    }
    let (input, first) = Socket::pair()?;
    let (output, second) = Socket::pair()?;
    let mut lister = Command::new("/proc/self/exe");
    // Not ended by Ctrl-C, which is for the whole group of processes: the last look at the rules comes after it.
    lister.arg0(NAME).process_group(0).stderr(Stdio::null());
    lister.stdin(OwnedFd::from(input)).stdout(OwnedFd::from(output)).spawn()?;
    let lane = |socket: Socket| -> io::Result<_> {
        socket.set_nonblocking(true)?;
        Ok(Arc::new(Mutex::new(BufReader::new(UnixStream::from_std(socket)?))))
    };
    let lister = Lister { lanes: [lane(first)?, lane(second)?], next: AtomicUsize::new(0) };
    // Somebody else's is as good.
    drop(LISTER.set(lister));
    Ok(())
}

/// The one that was started.
pub(super) fn started() -> Option<&'static Lister> {
    LISTER.get()
}

impl Lister {
    /// The listing, or why there is none.
    pub(super) async fn ask(&self, listing: Listing) -> Result<String, String> {
        let number = self.next.fetch_add(1, Ordering::Relaxed) % self.lanes.len();
        let Some(lane) = self.lanes.get(number).cloned() else { return Err("no lane".to_owned()) };
        let tool = listing.tool();
        // A task of its own: an answer that nobody waits for any more is read all the same.
        let asked = tokio::spawn(async move { exchange(&mut *lane.lock().await, &listing).await });
        let gone = |error: String| format!("{tool}: the process that runs it is gone: {error}");
        asked.await.map_err(|error| gone(error.to_string()))?.map_err(|error| gone(error.to_string()))?
    }
}

async fn exchange(lane: &mut BufReader<UnixStream>, listing: &Listing) -> io::Result<Result<String, String>> {
    lane.get_mut().write_all((serde_json::to_string(listing)? + "\n").as_bytes()).await?;
    let mut line = String::new();
    lane.read_line(&mut line).await?;
    let reply: Reply = serde_json::from_str(&line)?;
    let mut text = String::new();
    lane.take(reply.bytes).read_to_string(&mut text).await?;
    if text.len() as u64 != reply.bytes {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(if reply.listed { Ok(text) } else { Err(text) })
}

/// This process was started to be the lister.
pub fn is_lister() -> bool {
    std::env::args_os().next().is_some_and(|name| name == NAME)
}

/// The lister's whole life.
pub fn serve() -> io::Result<()> {
    privilege::become_lister().map_err(io::Error::other)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let lane = |file: OwnedFd| -> io::Result<UnixStream> {
        let socket = Socket::from(file);
        socket.set_nonblocking(true)?;
        UnixStream::from_std(socket)
    };
    let files = [io::stdin().as_fd().try_clone_to_owned()?, io::stdout().as_fd().try_clone_to_owned()?];
    runtime.block_on(async {
        let [first, second] = files;
        let (first, second) = tokio::join!(answer(lane(first)?), answer(lane(second)?));
        first.and(second)
    })
}

async fn answer(lane: UnixStream) -> io::Result<()> {
    let mut lane = BufReader::new(lane);
    loop {
        let mut line = String::new();
        if (&mut lane).take(LONGEST_REQUEST).read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let listing: Listing = serde_json::from_str(&line)?;
        let result = if listing.is_sound() { command::direct(&listing).await } else { Err("no such table".to_owned()) };
        let (listed, text) = match result {
            Ok(text) => (true, text),
            Err(why) => (false, why),
        };
        let reply = serde_json::to_string(&Reply { listed, bytes: text.len() as u64 })?;
        lane.get_mut().write_all((reply + "\n").as_bytes()).await?;
        lane.get_mut().write_all(text.as_bytes()).await?;
    }
}
