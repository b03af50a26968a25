//! The snapshot of a network namespace that the test has made, against what was configured there.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may, but clippy sees its helpers as no tests")]

use kvmtrace::event::host::{Backend, Chain, HostState, LinkKind, PortState};
use kvmtrace::host::{self, Changes};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Runs `test` in a network namespace of its own, which ends with it. Without root: skipped, and said so.
fn in_namespace(test: impl AsyncFnOnce() + Send + 'static) {
    let namespace = || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map(|()| {
            ip("link set lo up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(test());
        })
    };
    match std::thread::spawn(namespace).join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => println!("SKIP: a network namespace can't be made: {error}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A child of this thread is in its namespace.
fn run(program: &str, arguments: &str) {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

fn ip(arguments: &str) {
    run("ip", arguments);
}

/// A tap that lives as long as somebody has it open.
fn tap(name: &str) -> File {
    nix::ioctl_write_ptr_bad!(
        tun_set_iff,
        nix::request_code_write!(b'T', 202, size_of::<nix::libc::c_int>()),
        nix::libc::ifreq
    );
    let file = File::options().read(true).write(true).open("/dev/net/tun").unwrap();
    // SAFETY: an ifreq may be all zeroes.
    let mut request: nix::libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = (nix::libc::IFF_TAP | nix::libc::IFF_NO_PI) as i16;
    // SAFETY: the kernel reads and writes one ifreq.
    unsafe { tun_set_iff(file.as_raw_fd(), &raw const request) }.unwrap();
    file
}

/// A process that looks like a hypervisor and has `tap` open.
struct FakeQemu(Child);

impl FakeQemu {
    fn start(tap: &File, arguments: &str) -> Self {
        // A child of another test must not inherit the tap while it can be inherited.
        static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
        let _guard = ONE_AT_A_TIME.lock();
        let set = |flag| nix::fcntl::fcntl(tap, nix::fcntl::FcntlArg::F_SETFD(flag)).unwrap();
        let mut command = Command::new("/bin/sh");
        command.arg0("/usr/bin/qemu-system-x86_64").args(["-c", "read line", "qemu"]).args(arguments.split(' '));
        set(nix::fcntl::FdFlag::empty());
        let child = command.stdin(Stdio::piped()).spawn().unwrap();
        set(nix::fcntl::FdFlag::FD_CLOEXEC);
        Self(child)
    }

    fn stop(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        self.0.wait().unwrap();
    }
}

fn link<'a>(state: &'a HostState, name: &str) -> &'a kvmtrace::event::host::Link {
    state.link_named(name).unwrap_or_else(|| panic!("no {name}"))
}

#[test]
fn the_snapshot_tells_what_was_configured() {
    in_namespace(async || {
        let _tap = tap("vnet.0");
        ip("link add br0 type bridge forward_delay 400 mcast_snooping 0 group_fwd_mask 16384 nf_call_iptables 1");
        ip("link add eth0.7 type veth peer name lan0");
        ip("link add vx0 type vxlan id 42 remote 10.9.0.2 local 10.9.0.1 dstport 4790 dev br0 df set");
        for device in ["vnet.0", "eth0.7"] {
            ip(&format!("link set {device} master br0 up"));
        }
        for device in ["br0", "lan0", "vx0"] {
            ip(&format!("link set {device} up"));
        }
        ip("link set vnet.0 mtu 1400 txqueuelen 77");
        run(
            "bridge",
            "link set dev vnet.0 isolated on hairpin on learning off flood off mcast_flood off bcast_flood off",
        );
        run("bridge", "fdb add 52:54:00:00:00:09 dev eth0.7 master static sticky");
        ip("addr add 10.9.0.1/24 dev br0");
        ip("neigh add 10.9.0.5 lladdr 52:54:00:00:00:05 dev br0");
        ip("neigh add fd00::5 lladdr 52:54:00:00:00:05 dev br0");
        ip("route add blackhole 10.66.0.0/16");
        ip("route add 10.67.0.0/16 via 10.9.0.9 table 100 mtu 1300");
        ip("route add 10.68.0.0/16 nexthop via 10.9.0.7 nexthop via 10.9.0.8");
        ip("-6 route add prohibit fd66::/64");
        run("tc", "qdisc add dev vnet.0 root tbf rate 1mbit burst 10k latency 50ms");
        // The bridge enables a port when linkwatch has told it of the carrier.
        host::settle().await.unwrap();
        check_what_was_configured(&host::snapshot().await.unwrap());
    });
}

fn check_what_was_configured(state: &HostState) {
    assert_eq!(state.missing, []);
    let bridge = link(state, "br0");
    let LinkKind::Bridge(settings) = &bridge.kind else { panic!("{:?}", bridge.kind) };
    assert_eq!((settings.forward_delay, settings.group_forward_mask), (400, 16384));
    assert!(settings.netfilter_ip && !settings.multicast_snooping && !settings.stp);
    assert!(bridge.addresses.iter().any(|network| network.to_string() == "10.9.0.1/24"));

    let tap = link(state, "vnet.0");
    assert_eq!(tap.kind, LinkKind::Tun);
    assert_eq!((tap.mtu, tap.queue_length, tap.qdisc.as_str()), (1400, 77, "tbf"));
    assert_eq!(tap.master, Some(bridge.index));
    let port = tap.port.as_ref().unwrap();
    assert!(port.isolated && port.hairpin && !port.learning && !port.locked);
    assert!(!port.flood && !port.multicast_flood && !port.broadcast_flood);

    let (nic, peer) = (link(state, "eth0.7"), link(state, "lan0"));
    assert_eq!((nic.peer, nic.lower, nic.kind.clone()), (Some(peer.index), None, LinkKind::Veth));
    assert_eq!(nic.port.as_ref().unwrap().state, PortState::Forwarding);
    assert!(nic.up && nic.carrier);

    let tunnel = link(state, "vx0");
    let address = |text: &str| Some(text.parse().unwrap());
    let (remote, local) = (address("10.9.0.2"), address("10.9.0.1"));
    assert_eq!(tunnel.kind, LinkKind::Vxlan { vni: 42, remote, local, port: 4790, dont_fragment: 1 });
    assert_eq!(tunnel.lower, Some(bridge.index));

    let entry = state.forwarding.iter().find(|entry| entry.mac.to_string() == "52:54:00:00:00:09").unwrap();
    assert_eq!((entry.device, entry.bridge), (nic.index, Some(bridge.index)));
    assert!(entry.fixed && entry.sticky && !entry.permanent);
    assert!(state.forwarding.iter().any(|entry| entry.device == tunnel.index && entry.remote == remote));

    let routes = |destination: &str| {
        let fits = |route: &&kvmtrace::event::host::Route| route.destination.to_string() == destination;
        state.routes.iter().filter(fits).collect::<Vec<_>>()
    };
    assert_eq!(routes("10.66.0.0/16")[0].kind.name(), "blackhole");
    assert_eq!(routes("fd66::/64")[0].kind.name(), "prohibit");
    let other_table = routes("10.67.0.0/16")[0];
    assert_eq!((other_table.table, other_table.mtu, other_table.gateway), (100, Some(1300), address("10.9.0.9")));
    let gateways: Vec<_> = routes("10.68.0.0/16").iter().map(|route| route.gateway).collect();
    assert_eq!(gateways, [address("10.9.0.7"), address("10.9.0.8")]);
    assert_eq!(routes("10.9.0.1/32").len(), 0, "the local table is left out");

    let neighbour = state.neighbours.iter().find(|neighbour| neighbour.address.to_string() == "fd00::5").unwrap();
    assert_eq!((neighbour.device, neighbour.state.name()), (bridge.index, "permanent"));
    assert!(
        state.qdiscs.iter().any(|qdisc| qdisc.device == tap.index && qdisc.kind == "tbf" && qdisc.parent == "root")
    );
    assert!(state.sysctl("net.ipv4.conf.eth0.7.rp_filter").is_some(), "a device name with a dot");
    assert_eq!(state.sysctl("net.ipv4.ip_forward"), Some("0"));
    assert!(state.counters.contains_key("Ip.FragFails") && state.counters.contains_key("Icmp6.OutPktTooBigs"));
    assert!(!state.name.is_empty() && !state.kernel.is_empty());
}

#[test]
fn rules_are_told_with_their_owner_and_nothing_is_made_by_looking() {
    in_namespace(async || {
        let before = host::snapshot().await.unwrap();
        assert_eq!(before.netfilter.chains, []);
        assert_eq!(before.missing, []);
        let names = std::fs::read_to_string("/proc/thread-self/net/ip_tables_names").unwrap_or_default();
        assert_eq!(names, "", "looking has made no table of iptables-legacy");

        run("nft", "add table inet f");
        run("nft", "add chain inet f forwarding { type filter hook forward priority 5 ; policy drop ; }");
        run("nft", "add rule inet f forwarding iifname vnet0 counter reject");
        run("iptables-nft", "-A FORWARD -i vnet0 -j DROP");
        run("iptables-legacy", "-P FORWARD DROP");
        let state = host::refresh(&before).await.unwrap();
        assert_eq!(state.netfilter, before.netfilter, "a refresh keeps the rules");
        let state = host::snapshot().await.unwrap();
        assert_eq!(state.missing, []);
        let forward = |backend| {
            let fits = |chain: &&Chain| chain.backend == backend && chain.hook.as_deref() == Some("forward");
            state.netfilter.chains.iter().find(fits).unwrap()
        };
        let nft = forward(Backend::Nft);
        assert_eq!((nft.family.as_str(), nft.priority, nft.policy.as_deref()), ("inet", Some(5), Some("drop")));
        assert_eq!(nft.rules[0].verdict.as_deref(), Some("reject"));
        assert!(nft.rules[0].text.starts_with("iifname \"vnet0\" counter"), "{}", nft.rules[0].text);
        assert!(nft.rules[0].handle.is_some());
        let rule = &forward(Backend::IptablesNft).rules[0];
        assert_eq!((rule.text.as_str(), rule.verdict.as_deref()), ("-A FORWARD -i vnet0 -j DROP", Some("drop")));
        assert_eq!(forward(Backend::IptablesLegacy).policy.as_deref(), Some("drop"));
    });
}

#[test]
fn a_guest_is_named_by_the_hypervisor_that_has_its_tap_open() {
    in_namespace(async || {
        let tap = tap("vnet0");
        ip("link add br0 type bridge");
        ip("link set vnet0 master br0 up");
        ip("link set br0 up");
        ip("neigh add 10.9.0.5 lladdr 52:54:00:00:00:05 dev br0");
        let line = "-name guest=web1,debug-threads=on -uuid 0C5A4A2E-9e1b-4c7e-9d1e-0d7e5a5b6c7d \
                    -netdev tap,id=n0,ifname=vnet0 -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:05";
        let qemu = FakeQemu::start(&tap, line);
        let pid = qemu.0.id();
        let state = host::snapshot().await.unwrap();
        qemu.stop();
        assert_eq!(state.guests.len(), 1, "{:?}", state.guests);
        let guest = &state.guests[0];
        assert_eq!((guest.name.as_str(), guest.pid, guest.manager.as_deref()), ("web1", Some(pid), Some("qemu")));
        assert_eq!(guest.uuid.as_deref(), Some("0c5a4a2e-9e1b-4c7e-9d1e-0d7e5a5b6c7d"));
        let interface = &guest.interfaces[0];
        assert_eq!(interface.mac.unwrap().to_string(), "52:54:00:00:00:05");
        assert_eq!(interface.addresses, ["10.9.0.5".parse::<std::net::IpAddr>().unwrap()]);
    });
}

#[test]
fn a_tap_of_the_same_name_in_another_namespace_is_another_guests() {
    in_namespace(async || {
        let elsewhere = tap("vnet0");
        // From here on the tap above is in another namespace than we are.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        ip("tuntap add vnet0 mode tap");
        // Though this process runs in our namespace, it reads the tap of the other.
        let qemu = FakeQemu::start(&elsewhere, "-name guest=web1");
        let state = host::snapshot().await.unwrap();
        qemu.stop();
        assert_eq!(state.guests.len(), 1, "{:?}", state.guests);
        assert_eq!((state.guests[0].name.as_str(), state.guests[0].pid), ("vnet0", None));
    });
}

#[test]
fn a_change_is_told_even_if_waiting_for_it_is_interrupted_all_the_time() {
    in_namespace(async || {
        let mut changes = Changes::open().unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(500), changes.changed()).await;
        assert!(quiet.is_err(), "nothing has changed yet");
        ip("link add br0 type bridge");
        let mut told = false;
        for _ in 0..50 {
            told |= tokio::time::timeout(Duration::from_millis(20), changes.changed()).await.is_ok();
        }
        assert!(told, "within a second");
    });
}

#[test]
fn the_end_of_a_guests_process_is_told() {
    in_namespace(async || {
        let tap = tap("vnet0");
        let qemu = FakeQemu::start(&tap, "-name guest=web1");
        let mut changes = Changes::open().unwrap();
        changes.watch(&host::snapshot().await.unwrap());
        qemu.stop();
        // We still hold the tap, so that no device changes.
        let told = tokio::time::timeout(Duration::from_secs(3), changes.changed()).await;
        assert!(told.is_ok());
    });
}
