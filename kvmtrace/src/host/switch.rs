//! Open vSwitch: its configuration from ovsdb, its rules and learnt addresses from ovs-vswitchd, both over their sockets and
//! without a change (RFC 7047; ovs-appctl(8), `bridge/dump-flows` and `fdb/show`).

use super::json_rpc::JsonRpc;
use crate::event::bounds::{MOST, SWITCH};
use crate::event::host::LinkKind;
use crate::event::switch::{
    LOCAL, Switch, SwitchBridge, SwitchEntry, SwitchFlow, SwitchInterface, SwitchKind, SwitchPort, SwitchVlans,
};
use crate::event::{HostState, MacAddress};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Where its sockets lie, if nobody moved them.
const USUAL: [&str; 2] = ["/run/openvswitch", "/var/run/openvswitch"];
/// All of reading may take so long.
const PATIENCE: Duration = Duration::from_secs(3);

/// Reads it into a host's state; what could not be read, and why.
pub(super) fn read(state: &mut HostState) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    let is_here = state.links.values().any(|link| matches!(&link.kind, LinkKind::Other(kind) if kind == "openvswitch"));
    if !is_here {
        return missing;
    }
    let Some(directory) = directory() else {
        missing.push((
            SWITCH.to_owned(),
            format!("there is no {}/db.sock: its bridges and ports are not known", USUAL[0]),
        ));
        return missing;
    };
    let end = Instant::now() + PATIENCE;
    let tell = |what: &str, error: io::Error| {
        let late = error.kind() == io::ErrorKind::TimedOut;
        let why = if late { format!("no answer within {} s", PATIENCE.as_secs()) } else { error.to_string() };
        (SWITCH.to_owned(), format!("{what}: {why}"))
    };
    match database(&directory.join("db.sock"), end) {
        Ok(bridges) => state.switch.bridges = bridges,
        Err(error) => {
            missing.push(tell("its database (db.sock)", error));
            return missing;
        }
    }
    state.switch.directory =
        Some(directory.display().to_string()).filter(|directory| !USUAL.contains(&directory.as_str()));
    if let Err(error) = rules(&directory, &mut state.switch, end) {
        missing.push(tell("its OpenFlow rules (ovs-vswitchd)", error));
    }
    missing.extend(hidden(&state.switch));
    missing
}

/// As Open vSwitch's own programs find it.
fn directory() -> Option<PathBuf> {
    let told = std::env::var_os("OVS_RUNDIR").map(PathBuf::from).filter(|path| path.is_absolute());
    told.into_iter().chain(USUAL.map(PathBuf::from)).find(|directory| directory.join("db.sock").exists())
}

/// Guests whose packets no kernel sees.
fn hidden(switch: &Switch) -> Option<(String, String)> {
    let is_hidden = |kind: &SwitchKind| matches!(kind, SwitchKind::Other(kind) if kind.starts_with("dpdkvhostuser"));
    let names: Vec<&str> = switch
        .interfaces()
        .filter(|(_, interface)| is_hidden(&interface.kind))
        .map(|(_, interface)| interface.name.as_str())
        .take(8)
        .collect();
    (!names.is_empty()).then(|| {
        let why = format!("this host's kernel does not see the packets of {}", names.join(", "));
        ("guests on DPDK (vhost-user)".to_owned(), why)
    })
}

fn database(socket: &Path, end: Instant) -> io::Result<Vec<SwitchBridge>> {
    let select =
        |table: &str, columns: &[&str]| json!({"op": "select", "table": table, "where": [], "columns": columns});
    let question = json!([
        "Open_vSwitch",
        select("Bridge", &["name", "ports", "other_config"]),
        select("Port", &["_uuid", "name", "interfaces", "tag", "trunks", "vlan_mode"]),
        select("Interface", &["_uuid", "name", "type", "options", "ofport", "error"]),
    ]);
    let answer = JsonRpc::open(socket, end)?.ask("transact", &question)?;
    Ok(bridges(&answer))
}

/// The three tables of an answer, put together. What is not as it should be is passed over.
fn bridges(answer: &Value) -> Vec<SwitchBridge> {
    let rows = |index: usize| answer.get(index).and_then(|table| table.get("rows")?.as_array()).into_iter().flatten();
    let interfaces: BTreeMap<&str, SwitchInterface> =
        rows(2).filter_map(|row| Some((uuid(row.get("_uuid")?)?, interface(row)?))).collect();
    let ports: BTreeMap<&str, SwitchPort> = rows(1)
        .filter_map(|row| {
            let port = SwitchPort {
                name: text(row, "name")?,
                vlans: vlans(row),
                interfaces: set(row.get("interfaces")).filter_map(|id| interfaces.get(uuid(id)?).cloned()).collect(),
            };
            Some((uuid(row.get("_uuid")?)?, port))
        })
        .collect();
    let mut bridges: Vec<SwitchBridge> = rows(0)
        .filter_map(|row| {
            let mut bridge = SwitchBridge {
                name: text(row, "name")?,
                forwards_reserved: option(row, "other_config", "forward-bpdu") == Some("true"),
                ports: set(row.get("ports")).filter_map(|id| ports.get(uuid(id)?).cloned()).collect(),
                ..SwitchBridge::default()
            };
            bridge.ports.sort_by(|a, b| a.name.cmp(&b.name));
            Some(bridge)
        })
        .collect();
    bridges.sort_by(|a, b| a.name.cmp(&b.name));
    bridges
}

fn interface(row: &Value) -> Option<SwitchInterface> {
    let end = |key: &str| option(row, "options", key).and_then(|value| value.parse().ok());
    let kind = match text(row, "type")?.as_str() {
        "" | "system" => SwitchKind::System,
        "internal" => SwitchKind::Internal,
        "patch" => SwitchKind::Patch(option(row, "options", "peer").map(str::to_owned)),
        kind @ ("vxlan" | "geneve" | "gre" | "gre64" | "stt" | "erspan" | "ip6gre" | "ip6erspan" | "lisp" | "gtpu") => {
            let key = option(row, "options", "key").and_then(|key| key.parse().ok());
            SwitchKind::Tunnel(kind.to_owned(), end("remote_ip"), key)
        }
        other => SwitchKind::Other(other.to_owned()),
    };
    let number = set(row.get("ofport")).next().and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
    let error = set(row.get("error")).next().and_then(Value::as_str).map(str::to_owned);
    Some(SwitchInterface { name: text(row, "name")?, kind, number, error })
}

fn vlans(row: &Value) -> SwitchVlans {
    let numbers = |key: &str| set(row.get(key)).filter_map(|vlan| u16::try_from(vlan.as_u64()?).ok());
    let (tag, mut trunks): (Option<u16>, Vec<u16>) = (numbers("tag").next(), numbers("trunks").collect());
    trunks.sort_unstable();
    match (set(row.get("vlan_mode")).next().and_then(Value::as_str), tag) {
        // `port_configure`: with a tag, and without a mode, it is an access port.
        (None | Some("access"), Some(tag)) => SwitchVlans::Access(tag),
        (Some("native-tagged"), tag) => SwitchVlans::Native(tag.unwrap_or(0), trunks, false),
        (Some("native-untagged"), tag) => SwitchVlans::Native(tag.unwrap_or(0), trunks, true),
        (Some("dot1q-tunnel"), tag) => SwitchVlans::Wrapped(tag.unwrap_or(0)),
        (_, _) => SwitchVlans::Trunk(trunks),
    }
}

fn text(row: &Value, column: &str) -> Option<String> {
    row.get(column)?.as_str().map(str::to_owned)
}

/// `["uuid", "…"]`
fn uuid(value: &Value) -> Option<&str> {
    value.get(1)?.as_str().filter(|_| value.get(0).and_then(Value::as_str) == Some("uuid"))
}

/// `["set", […]]`, or its only element.
fn set(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let many = value.filter(|value| value.get(0).and_then(Value::as_str) == Some("set"));
    let one = value.filter(|_| many.is_none());
    many.and_then(|many| many.get(1)?.as_array()).into_iter().flatten().chain(one)
}

/// A value of `["map", [["key", "value"], …]]`.
fn option<'v>(row: &'v Value, column: &str, key: &str) -> Option<&'v str> {
    let pairs = row.get(column)?.get(1)?.as_array()?;
    pairs.iter().find(|pair| pair.get(0).and_then(Value::as_str) == Some(key))?.get(1)?.as_str()
}

/// Rules and learnt addresses of each bridge, from the daemon that has them.
fn rules(directory: &Path, switch: &mut Switch, end: Instant) -> io::Result<()> {
    let process = std::fs::read_to_string(directory.join("ovs-vswitchd.pid"))?;
    let process: u32 = process.trim().parse().map_err(io::Error::other)?;
    let mut daemon = JsonRpc::open(&directory.join(format!("ovs-vswitchd.{process}.ctl")), end)?;
    for bridge in &mut switch.bridges {
        let told = daemon.ask("bridge/dump-flows", &json!([bridge.name]))?;
        bridge.flows = flows(told.as_str().unwrap_or_default());
        let told = daemon.ask("fdb/show", &json!([bridge.name]))?;
        bridge.learnt = learnt(told.as_str().unwrap_or_default());
    }
    Ok(())
}

/// `bridge/dump-flows`: a rule a line. None where there are too many to keep, or one can't be read.
fn flows(text: &str) -> Option<Vec<SwitchFlow>> {
    let flows: Vec<SwitchFlow> =
        text.lines().filter(|line| !line.trim().is_empty()).take(MOST + 1).map(flow).collect::<Option<_>>()?;
    (flows.len() <= MOST).then_some(flows)
}

fn flow(line: &str) -> Option<SwitchFlow> {
    // The priority that is not written.
    const DEFAULT: u16 = 32_768;
    let (head, actions) = line.trim().split_once("actions=")?;
    let mut flow = SwitchFlow { priority: DEFAULT, actions: actions.to_owned(), ..SwitchFlow::default() };
    let mut fields = Vec::new();
    for word in head.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word.split_once('=') {
            Some(("table_id" | "table", table)) => flow.table = table.parse().ok()?,
            Some(("n_packets", packets)) => flow.packets = packets.parse().ok()?,
            Some(("priority", priority)) => flow.priority = priority.parse().ok()?,
            Some((
                "cookie" | "duration" | "n_bytes" | "idle_age" | "hard_age" | "n_offload_packets" | "n_offload_bytes",
                _,
            )) => {}
            _ => fields.push(word),
        }
    }
    flow.fields = fields.join(",");
    Some(flow)
}

/// `fdb/show`: port, VLAN, MAC address, age, below a line of titles.
fn learnt(text: &str) -> Vec<SwitchEntry> {
    let entry = |line: &str| {
        let mut words = line.split_whitespace();
        let (port, vlan, mac) = (words.next()?, words.next()?, words.next()?);
        let port = if port == "LOCAL" { LOCAL } else { port.parse().ok()? };
        Some(SwitchEntry { port, vlan: vlan.parse().ok()?, mac: mac.parse::<MacAddress>().ok()? })
    };
    text.lines().filter_map(entry).take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn bridges_ports_and_interfaces_are_put_together() {
        let id = |name: &str| json!(["uuid", name]);
        let port = |name: &str, tag: Value| json!({"_uuid": id(name), "name": name, "interfaces": id(name), "tag": tag, "trunks": ["set", []], "vlan_mode": ["set", []]});
        let interface = |name: &str, kind: &str, options: Value, number: Value| json!({"_uuid": id(name), "name": name, "type": kind, "options": ["map", options], "ofport": number, "error": ["set", []]});
        let answer = json!([
            {"rows": [{"name": "br-int", "ports": ["set", [id("vnet0"), id("br-int"), id("patch0"), id("gen0")]], "other_config": ["map", []]}]},
            {"rows": [port("vnet0", json!(20)), port("br-int", json!(["set", []])), port("patch0", json!(["set", []])), port("gen0", json!(["set", []]))]},
            {"rows": [
                interface("vnet0", "", json!([]), json!(3)),
                interface("br-int", "internal", json!([]), json!(65534)),
                interface("patch0", "patch", json!([["peer", "patch1"]]), json!(["set", []])),
                interface("gen0", "geneve", json!([["remote_ip", "192.0.2.9"], ["key", "7"]]), json!(4)),
            ]},
        ]);
        let bridges = bridges(&answer);
        assert_eq!(bridges.len(), 1);
        let ports: Vec<_> = bridges[0].ports.iter().map(|port| (port.name.as_str(), &port.vlans)).collect();
        let all = SwitchVlans::default();
        assert_eq!(ports, [("br-int", &all), ("gen0", &all), ("patch0", &all), ("vnet0", &SwitchVlans::Access(20))]);
        let interfaces: Vec<_> =
            bridges[0].ports.iter().map(|port| (&port.interfaces[0].kind, port.interfaces[0].number)).collect();
        assert_eq!(interfaces[0], (&SwitchKind::Internal, Some(LOCAL)));
        let remote = Some("192.0.2.9".parse().unwrap());
        assert_eq!(interfaces[1], (&SwitchKind::Tunnel("geneve".to_owned(), remote, Some(7)), Some(4)));
        assert_eq!(interfaces[2], (&SwitchKind::Patch(Some("patch1".to_owned())), None));
        assert_eq!(interfaces[3], (&SwitchKind::System, Some(3)));
    }

    #[test]
    fn an_answer_that_lies_is_no_bridge() {
        for answer in [json!(null), json!([]), json!([{"rows": 7}, {}, {}]), json!([{"rows": [{"name": 3}]}, 1, "x"])] {
            assert!(bridges(&answer).is_empty(), "{answer}");
        }
        let alone = json!([{"rows": [{"name": "br0", "ports": ["uuid", "x"]}]}, {"rows": []}, {"rows": []}]);
        assert_eq!(bridges(&alone)[0].ports, []);
    }

    #[rstest]
    #[case("duration=12s, n_packets=3, n_bytes=294, priority=100,icmp,nw_src=10.99.0.11,actions=drop", (0, 100, "icmp,nw_src=10.99.0.11", "drop", 3))]
    #[case("table_id=254, duration=5s, n_packets=0, n_bytes=0, priority=0,reg0=0x1,actions=controller(reason=)", (254, 0, "reg0=0x1", "controller(reason=)", 0))]
    #[case("duration=5s, n_packets=9, n_bytes=0, actions=resubmit(,10),output:3", (0, 32_768, "", "resubmit(,10),output:3", 9))]
    fn rules_are_read(#[case] line: &str, #[case] expected: (u8, u16, &str, &str, u64)) {
        let flow = flow(line).unwrap();
        assert_eq!((flow.table, flow.priority, flow.fields.as_str(), flow.actions.as_str(), flow.packets), expected);
    }

    #[test]
    fn half_of_the_rules_is_none() {
        assert_eq!(flows("nonsense"), None);
        assert_eq!(flows(&"priority=1,actions=drop\n".repeat(MOST + 1)), None);
        assert_eq!(flows("\n"), Some(Vec::new()));
    }

    #[test]
    fn learnt_addresses_are_read() {
        let told = " port  VLAN  MAC                Age\n    1    20  52:54:00:cc:00:01    1\nLOCAL     0  52:54:00:bb:00:02   12\n x 0 zz\n";
        let entries = learnt(told);
        assert_eq!(entries.iter().map(|entry| (entry.port, entry.vlan)).collect::<Vec<_>>(), [(1, 20), (LOCAL, 0)]);
    }
}
