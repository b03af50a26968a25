//! Frames enter devices of a namespace of the test's own, and a packet socket there reads what the stack received.

use super::*;
use crate::event::names::MacvtapMode;
use crate::kernel::Kernel;
use crate::kernel::version::LIVE_FRAMES;
use crate::probe::loader::Settings;
use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike as _};
use std::process::Command;

/// An `EtherType` for experiments (IEEE 802): nothing answers it.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

fn frame(length: usize) -> Vec<u8> {
    let mut frame = [&[0x02, 0, 0, 0, 0, 1, 0x52, 0x54, 0, 0, 0, 1][..], &ETHER_TYPE].concat();
    let rest = (frame.len()..length).map(|at| at as u8);
    frame.extend(rest);
    frame
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().expect("ip runs");
    assert!(status.success(), "ip {line}");
}

/// Runs in a network namespace of its own, as root; says so where it can't.
fn apart(test: impl FnOnce() + Send + 'static) {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs as root");
        eprintln!("SKIP: sending frames needs root");
        return;
    }
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        test();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

/// A tap that a guest's process holds.
fn held_tap(name: &str) -> File {
    let tap = OpenOptions::new().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
    let mut request = interface_request(name);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the descriptor is open and the request lives through the call.
    unsafe { requests::set_interface(tap.as_raw_fd(), &raw mut request) }.expect("a tap");
    ip(&format!("link set {name} up"));
    tap
}

fn link(name: &str, kind: LinkKind) -> Link {
    let index = nix::net::if_::if_nametoindex(name).expect("the device is there");
    Link { name: name.to_owned(), kind, ..crate::host::test_hosts::link(index, name, LinkKind::Physical) }
}

/// Frames of the experiment that a device receives.
struct Ear(OwnedFd);

impl Ear {
    fn at(device: &Link) -> Self {
        let socket = packet_socket(device.index).expect("a packet socket");
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as libc::c_ushort,
            sll_protocol: (libc::ETH_P_ALL as u16).to_be(),
            sll_ifindex: i32::try_from(device.index.0).expect("a small index"),
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
        // SAFETY: as in `packet_socket`.
        Errno::result(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) }).expect("bound");
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(5)).expect("a timeout");
        Self(socket)
    }

    fn hears(&self, wanted: &[u8]) -> bool {
        let mut buffer = vec![0; LONGEST + 1];
        while let Ok(length) = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            let heard = buffer.get(..length).unwrap_or_default();
            if heard.get(12..14) == Some(&ETHER_TYPE) {
                return heard == wanted;
            }
        }
        false
    }
}

fn programs() -> (Programs, Kernel) {
    let kernel = Kernel::read().expect("a kernel that can be traced");
    let programs =
        Programs::load(&kernel, Settings { filter: None, every_packet: false, every_drop: false }).expect("programs");
    (programs, kernel)
}

fn own_devices() -> usize {
    let names = nix::net::if_::if_nameindex().expect("names of devices");
    names.iter().filter(|device| device.name().to_string_lossy().starts_with(OWN_DEVICES)).count()
}

#[test]
fn a_frame_enters_by_a_tap_byte_for_byte_and_no_device_is_made_for_it() {
    apart(|| {
        let (mut programs, kernel) = programs();
        let _guest = held_tap("tap0");
        let tap = link("tap0", LinkKind::Tun);
        let ear = Ear::at(&tap);
        let mut injector = Injector::open(&mut programs, &tap, kernel.version >= LIVE_FRAMES).expect("a way in");
        for length in [60, 1_514, 3_000] {
            injector.send(&mut programs, &frame(length)).expect("sent");
            assert!(ear.hears(&frame(length)), "{length} bytes");
        }
        assert_eq!(own_devices(), usize::from(kernel.version < LIVE_FRAMES));
    });
}

#[test]
fn a_frame_longer_than_a_page_enters_by_a_tap_of_our_own_that_ends_with_the_injector() {
    apart(|| {
        let (mut programs, kernel) = programs();
        let _guest = held_tap("tap0");
        // Before 5.12 nothing longer than the device's MTU is redirected.
        ip("link set tap0 mtu 65521");
        let tap = link("tap0", LinkKind::Tun);
        let ear = Ear::at(&tap);
        let mut injector = Injector::open(&mut programs, &tap, kernel.version >= LIVE_FRAMES).expect("a way in");
        for length in [9_014, 60, 65_535] {
            injector.send(&mut programs, &frame(length)).expect("sent");
            assert!(ear.hears(&frame(length)), "{length} bytes");
        }
        assert_eq!(own_devices(), 1);
        drop(injector);
        assert_eq!(own_devices(), 0);
    });
}

#[test]
fn a_frame_enters_by_a_device_that_has_no_queue_for_live_frames_and_on_kernels_that_have_none() {
    apart(|| {
        ip("link add nic0 type veth peer name far0");
        ip("link set nic0 up");
        ip("link set far0 up");
        let nic = link("nic0", LinkKind::Veth);
        for live_frames in [true, false] {
            let (mut programs, kernel) = programs();
            let ear = Ear::at(&nic);
            let live_frames = live_frames && kernel.version >= LIVE_FRAMES;
            let mut injector = Injector::open(&mut programs, &nic, live_frames).expect("a way in");
            injector.send(&mut programs, &frame(900)).expect("sent");
            assert!(ear.hears(&frame(900)), "live frames: {live_frames}");
        }
    });
}

#[test]
fn a_frame_of_a_macvtaps_guest_leaves_by_the_device_below() {
    apart(|| {
        ip("link add nic0 type veth peer name far0");
        ip("link set nic0 up");
        ip("link set far0 up");
        ip("link add link nic0 name macvtap0 type macvtap mode bridge");
        ip("link set macvtap0 up");
        let (mut programs, kernel) = programs();
        let macvtap = link("macvtap0", LinkKind::Macvtap { mode: MacvtapMode::Bridge });
        let ear = Ear::at(&link("far0", LinkKind::Veth));
        let mut injector = Injector::open(&mut programs, &macvtap, kernel.version >= LIVE_FRAMES).expect("a way in");
        injector.send(&mut programs, &frame(700)).expect("sent");
        assert!(ear.hears(&frame(700)));
    });
}

#[test]
fn what_is_no_frame_is_refused() {
    apart(|| {
        let (mut programs, kernel) = programs();
        let _guest = held_tap("tap0");
        let tap = link("tap0", LinkKind::Tun);
        let mut injector = Injector::open(&mut programs, &tap, kernel.version >= LIVE_FRAMES).expect("a way in");
        for length in [0, 13, LONGEST + 1] {
            assert!(injector.send(&mut programs, &vec![0; length]).is_err(), "{length} bytes");
        }
    });
}
