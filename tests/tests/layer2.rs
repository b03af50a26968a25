//! Frames that are neither IP nor ARP.

#![allow(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::plan::{Options, Topology};
use kvmtrace_tests::lab::{Lab, can_test, lab_binary};
use kvmtrace_tests::product::Product;

/// Frames that are sent.
const FRAMES: u64 = 12;

#[test]
fn a_frame_without_ip_that_dies_is_one_flow_by_its_mac_addresses() {
    if !can_test("frames without IP").unwrap() {
        return;
    }
    let options = Options { topology: Topology::Bridge, guests: 1, ..Options::default() };
    let (product, lab) =
        (Product::find().unwrap(), Lab::drawn(&options, Seed::choose().unwrap(), "frames-without-ip").unwrap());
    // The first local experimental EtherType (IEEE 802, 9.2.4).
    let rules = "chain c { type filter hook forward priority 0; ether type 0x88b5 counter drop; };";
    lab.host.check(&format!("nft 'table bridge kt_drop {{ {rules} }};'")).unwrap();
    let guest = &lab.guests[0];
    let (from, to) = (guest.plan.port.mac.clone(), lab.plan.lan.mac.clone());
    let frame = format!("{}{}88b5{}", to.replace(':', ""), from.replace(':', ""), "00".repeat(46));
    let (device, count) = (guest.plan.port.device.as_str(), FRAMES.to_string());
    let ((), verdict) = product
        .verdict(&lab, &[], || {
            let mut command = guest.namespace.command(lab_binary()?);
            command.args(["program", "raw-frames", "--device", device, "--count", &count, "--interval", "20"]);
            command.args(["--frame", &frame]);
            anyhow::ensure!(command.status()?.success(), "the frames were not sent");
            Ok(())
        })
        .unwrap();
    let flows = verdict.json["flows"].as_array().unwrap();
    let own: Vec<_> = flows.iter().filter(|flow| flow["source"] == from.as_str() && flow["dropped"] != 0).collect();
    let [flow] = own.as_slice() else { panic!("not one flow: {:#}", verdict.json) };
    assert_eq!((flow["packets"].as_u64(), flow["dropped"].as_u64()), (Some(FRAMES), Some(FRAMES)), "{flow:#}");
    assert_eq!((flow["destination"].as_str(), flow["cause"].as_str()), (Some(to.as_str()), Some("netfilter-bridge")));
    let same = flows.iter().filter(|other| other["protocol"] == flow["protocol"]).count();
    assert_eq!(same, 1, "it stands twice: {:#}", verdict.json);
}
