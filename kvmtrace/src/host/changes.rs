//! Told when the host's network changes: devices (a guest's start and end among them: a tap whose process comes or goes
//! changes its carrier), addresses, routes.

use super::HostError;
use netlink_sys::{AsyncSocket as _, Socket, SocketAddr, TokioSocket, protocols::NETLINK_ROUTE};
use std::future::poll_fn;
use std::time::Duration;
use tokio::time::sleep;

/// `RTMGRP_LINK`, `RTMGRP_IPV4_IFADDR`, `RTMGRP_IPV4_ROUTE`, `RTMGRP_IPV6_IFADDR`, `RTMGRP_IPV6_ROUTE`
/// (linux/rtnetlink.h).
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;
/// One change brings others: wait until they are all there.
const SETTLE: Duration = Duration::from_millis(200);

/// A listener of the kernel's announcements.
pub struct Changes {
    socket: TokioSocket,
    pending: bool,
}

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").field("pending", &self.pending).finish_non_exhaustive()
    }
}

impl Changes {
    /// Listens from now on, in the network namespace of the calling thread.
    pub fn open() -> Result<Self, HostError> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE).map_err(HostError::Open)?;
        socket.socket_mut().bind(&SocketAddr::new(0, GROUPS)).map_err(HostError::Open)?;
        Ok(Self { socket, pending: false })
    }

    /// Returns when something has changed and has settled. Cancel-safe: a change that was heard of is told by the next
    /// call.
    pub async fn changed(&mut self) -> Result<(), HostError> {
        if !self.pending {
            self.receive().await;
            self.pending = true;
        }
        sleep(SETTLE).await;
        self.drain();
        self.pending = false;
        Ok(())
    }

    /// Waits for an announcement. What it says does not matter, nor whether it was whole: that one came does. An overrun
    /// socket (ENOBUFS) has missed some: a change, too.
    async fn receive(&mut self) {
        let mut buffer = Vec::with_capacity(1 << 16);
        let received = poll_fn(|context| self.socket.poll_recv(context, &mut buffer)).await;
        if let Err(error) = received {
            tracing::debug!(%error, "netlink announcements");
        }
    }

    fn drain(&mut self) {
        let socket: &Socket = self.socket.socket_ref();
        let mut buffer = Vec::with_capacity(1 << 16);
        while socket.recv(&mut buffer, nix::libc::MSG_DONTWAIT).is_ok() {
            buffer.clear();
        }
    }
}
