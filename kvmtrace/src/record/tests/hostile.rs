//! Hosts and files beyond measure: what is larger than a recording has room for, and what is made to keep a reader busy.

use super::format::{COMPRESSED, LARGEST_RATIO};
use super::*;
use crate::event::bounds::{MOST, ROOM};
use crate::event::host::{FdbEntry, Link, LinkKind, Neighbour, Network, PortVlan, Route, Rule};
use crate::event::names::RouteKind;
use crate::event::{HostState, IfIndex, MacAddress};
use std::net::Ipv4Addr;

#[test]
fn an_event_of_too_many_values_is_neither_written_nor_read() {
    let event = |names: usize| {
        let EventKind::Started(started) = trace()[0].kind.clone() else { unreachable!() };
        let devices = vec![String::new(); names];
        Event { time: Timestamp(1), kind: EventKind::Started(crate::event::Started { devices, ..started }) }
    };
    for (names, fits) in [(1_040_000, true), (1_050_000, false)] {
        let mut writer = Writer::stream(Box::new(Shared::default()), options(None)).unwrap();
        let written = writer.write(&event(names));
        assert_eq!(written.is_ok(), fits, "{written:?}");
        // The writer goes on.
        writer.write(&trace()[0]).unwrap();
        assert_eq!(writer.finish().unwrap().events, 1 + u64::from(fits));

        let mut batch = Vec::new();
        schema::begin(&mut batch);
        schema::append(&mut batch, &event(names)).unwrap();
        let (events, damage) = read(&fuzz::events_file(&batch)).unwrap();
        assert_eq!((events.len(), damage.stretches > 0), (usize::from(fits), !fits), "{damage:?}");
    }
}

#[test]
fn a_bomb_is_not_unpacked() {
    let bomb = zstd::bulk::compress(&vec![0; 1 << 28], 19).unwrap();
    for plain in [LARGEST_BLOCK, 100] {
        let mut bytes = prelude().to_vec();
        bytes.extend(BlockHeader::new(EVENTS, format::COMPRESSED, &bomb, plain).bytes());
        bytes.extend(&bomb);
        let (events, damage) = read(&bytes).unwrap();
        assert_eq!((events.len(), damage.stretches), (0, 1));
    }
}

#[test]
fn a_file_of_promises_does_not_take_for_ever() {
    // Each block's header promises eight megabytes that the checksum then refutes.
    let header = BlockHeader { stored: LARGEST_BLOCK as u32, ..BlockHeader::new(EVENTS, 0, b"", 0) };
    let mut bytes = prelude().to_vec();
    while bytes.len() < 2 * LARGEST_BLOCK {
        bytes.extend(header.bytes());
    }
    let begin = cpu_time();
    let (events, damage) = read(&bytes).unwrap();
    assert_eq!((events.len(), damage.stretches), (0, 1));
    assert!(cpu_time() - begin < 30_000, "{} ms", cpu_time() - begin);
}

/// Milliseconds of processor time that this process has used.
fn cpu_time() -> i64 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID).unwrap();
    time.tv_sec() * 1000 + time.tv_nsec() / 1_000_000
}

/// The host's state of the sample trace.
fn host() -> HostState {
    let EventKind::Host(host) = trace()[1].kind.clone() else { unreachable!() };
    HostState::clone(&host)
}

fn route(number: u32) -> Route {
    Route {
        destination: Network { address: Ipv4Addr::from(0x1400_0000 + number * 256).into(), prefix: 24 },
        gateway: Some(Ipv4Addr::new(10, 0, 0, 254).into()),
        device: Some(IfIndex(4)),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    }
}

/// What the recording of one host's state tells of it.
fn recorded(host: &HostState) -> HostState {
    let event = Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host.clone())) };
    let (events, damage) = read(&record(&[event])).unwrap();
    assert_eq!(damage, Damage::default());
    let EventKind::Host(host) = events[0].kind.clone() else { unreachable!() };
    HostState::clone(&host)
}

#[test]
fn a_router_with_a_full_table_is_recorded_with_the_routes_that_tell_most() {
    let mut router = host();
    let special = Route { kind: RouteKind::Blackhole, gateway: None, device: None, ..route(77) };
    router.routes.extend((0..60_000).map(route).chain([special.clone()]));
    let all = router.routes.len();
    let kept = recorded(&router);
    assert!((100..=MOST).contains(&kept.routes.len()), "{}", kept.routes.len());
    assert!(
        kept.routes.contains(&special) && kept.routes.contains(&host().routes[0]),
        "the default route, the special one"
    );
    let (what, why) = kept.missing.last().unwrap();
    assert_eq!(what, "routes");
    assert!(why.starts_with(&format!("there are {all}; the {} that tell most are kept", kept.routes.len())), "{why}");

    // What a live trace is told of is bounded beforehand, so that a report of its recording says the same.
    let mut live = router.clone();
    live.bound(ROOM);
    assert_eq!(recorded(&live), live);
    let mut again = live.clone();
    again.bound(ROOM);
    assert_eq!(again, live);
}

#[test]
fn a_host_that_is_too_large_in_every_way_is_recorded_all_the_same() {
    let mut huge = host();
    let v6 = |number: u32| std::net::Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(number)).into();
    let guest_mac = huge.forwarding[0].mac;
    let mac =
        |number: u32| MacAddress([2, 0, (number >> 24) as u8, (number >> 16) as u8, (number >> 8) as u8, number as u8]);
    let (fdb, port) = (huge.forwarding[0].clone(), huge.links[&IfIndex(2)].clone());
    for number in 0..15_000 {
        huge.routes.push(Route { destination: Network { address: v6(number), prefix: 64 }, ..route(0) });
        let state = "stale".into();
        huge.neighbours.push(Neighbour { address: v6(number), device: IfIndex(4), mac: Some(mac(number)), state });
        let remote = Some(v6(number % 100));
        huge.forwarding.insert(0, FdbEntry { mac: mac(number), device: IfIndex(5), remote, ..fdb.clone() });
        let text = format!(
            "ip saddr 10.0.0.{} tcp dport {number} counter accept comment \"{}\"",
            number % 256,
            "x".repeat(200)
        );
        huge.netfilter.chains[0].rules.push(Rule { handle: None, number, text, packets: None, verdict: None });
        let index = IfIndex(100 + number);
        let name = format!("veth{number}");
        huge.links.insert(index, Link { index, name, kind: LinkKind::Veth, ..port.clone() });
        huge.sysctls.insert(format!("net.ipv4.conf.veth{number}.rp_filter"), "1".to_owned());
    }
    let tunnel = IfIndex(20_000);
    let kind = LinkKind::Other("wireguard".to_owned());
    huge.links.insert(tunnel, Link { index: tunnel, name: "wg0".to_owned(), kind, ethernet: false, ..port.clone() });
    let kept = recorded(&huge);
    assert!(kept.links.contains_key(&tunnel), "what leads out stays");
    assert!(kept.forwarding.iter().any(|entry| entry.mac == guest_mac), "what concerns a guest stays");
    assert!(kept.links.contains_key(&IfIndex(3)) && kept.guests == huge.guests);
    assert!(kept.routes.len() > 500 && kept.links.len() > 500 && kept.netfilter.chains[0].rules.len() > 500);
    let cut: Vec<&str> = kept.missing.iter().map(|(what, _)| what.as_str()).collect();
    for what in ["routes", "neighbours", "forwarding database", "firewall rules", "devices"] {
        assert!(cut.contains(&what), "{what}: {cut:?}");
    }
}

#[test]
fn trunks_of_all_vlans_take_no_room() {
    let mut trunks = host();
    let mut link = trunks.links[&IfIndex(3)].clone();
    let run = PortVlan { id: 2, last: Some(4094), pvid: false, untagged: false };
    link.port.as_mut().unwrap().vlans.push(run);
    for number in 0..1000 {
        let index = IfIndex(100 + number);
        trunks.links.insert(index, Link { index, ..link.clone() });
    }
    assert_eq!(recorded(&trunks), trunks);
}

#[test]
fn devices_that_come_and_go_do_not_add_up() {
    let mut track = crate::track::Track::default();
    for number in 0..1200 {
        let mut state = host();
        let index = IfIndex(100 + number);
        let link = Link { index, ..state.links[&IfIndex(3)].clone() };
        state.links.insert(index, link);
        state.guests[0].name = format!("web{number}");
        state.guests[0].interfaces[0].device = index;
        track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(state)) });
    }
    let (links, guests) = (&track.host().links, &track.host().guests);
    assert!(
        (100..600).contains(&links.len()) && (100..600).contains(&guests.len()),
        "{} {}",
        links.len(),
        guests.len()
    );
    assert!(links[&IfIndex(1299)].up && !links[&IfIndex(1298)].up && !links.contains_key(&IfIndex(100)));
    assert!(guests.iter().any(|guest| guest.name == "web1198" && guest.pid.is_none()), "the youngest are known");
}

/// A file of many small blocks, each as dense as a reader takes it.
fn bomb(event: &Event) -> Vec<u8> {
    let mut plain = Vec::new();
    schema::begin(&mut plain);
    while plain.len() < 1 << 20 {
        schema::append(&mut plain, event).unwrap();
    }
    let mut bytes = prelude().to_vec();
    while bytes.len() < 8 << 10 {
        let mut packed = zstd::bulk::compress(&plain, 19).unwrap();
        // As small as it may be: a frame that is passed over makes it larger.
        let wanted = plain.len().div_ceil(LARGEST_RATIO);
        if let Some(missing) = wanted.checked_sub(packed.len() + 8) {
            packed.extend(0x184d_2a50_u32.to_le_bytes());
            packed.extend((missing as u32).to_le_bytes());
            packed.resize(wanted, 0);
        }
        bytes.extend(BlockHeader::new(EVENTS, COMPRESSED, &packed, plain.len()).bytes());
        bytes.extend(&packed);
    }
    bytes
}

#[test]
fn a_small_file_takes_little_time_whatever_it_unpacks_to() {
    let small = HostState { links: [].into(), ..HostState::default() };
    let events = [
        Event { time: Timestamp(0), kind: EventKind::Ended },
        Event { time: Timestamp(0), kind: EventKind::Host(std::sync::Arc::new(small)) },
        trace()[4].clone(),
    ];
    for event in events {
        let bytes = bomb(&event);
        let begin = cpu_time();
        let mut reader = Reader::new(bytes.as_slice(), "bomb").unwrap();
        let mut pipeline = crate::pipeline::Pipeline::default();
        // A host with much, so that taking in another is no small thing.
        pipeline.take(&Event { time: Timestamp(0), kind: EventKind::Host(std::sync::Arc::new(host())) });
        let mut events = 0_u64;
        while let Some(event) = reader.next_event().unwrap() {
            pipeline.take(&event);
            events += 1;
        }
        let report = pipeline.report();
        assert!(events > 5000 && reader.damage().stretches == 0, "{events} events, {:?}", reader.damage());
        assert!(report.flows.len() <= 1);
        assert!(cpu_time() - begin < 10_000, "{events} events in {} ms", cpu_time() - begin);
    }

    // Denser than that is damage.
    let plain = vec![0; 1 << 20];
    let packed = zstd::bulk::compress(&plain, 19).unwrap();
    let mut bytes = prelude().to_vec();
    bytes.extend(BlockHeader::new(EVENTS, COMPRESSED, &packed, plain.len()).bytes());
    bytes.extend(&packed);
    let (events, damage) = read(&bytes).unwrap();
    assert_eq!((events.len(), damage.stretches), (0, 1));

    // Nor does the writer write it: such a batch stays as it is.
    let same = vec![Event { time: Timestamp(0), kind: EventKind::Ended }; 100_000];
    assert_eq!(read(&record(&same)).unwrap(), (same, Damage::default()));
}

#[test]
fn an_event_that_kvmtrace_would_not_write_is_damage() {
    let EventKind::Packet(packet) = trace()[4].kind.clone() else { unreachable!() };
    let huge = crate::event::PacketRecord { header: vec![0; 100_000], ..*packet };
    let mut batch = Vec::new();
    schema::begin(&mut batch);
    schema::append(&mut batch, &Event { time: Timestamp(1), kind: EventKind::Packet(Box::new(huge)) }).unwrap();
    schema::append(&mut batch, &trace()[0]).unwrap();
    let (events, damage) = read(&fuzz::events_file(&batch)).unwrap();
    assert_eq!((events.as_slice(), damage.stretches), (&trace()[..1], 1));
}
