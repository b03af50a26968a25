//! What a hypervisor's command line tells of its guest. Any user can write one: nothing in it is trusted to be short,
//! valid or true beyond naming things.

use crate::event::MacAddress;
use std::collections::BTreeMap;

/// A hypervisor that is known by the name of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "Cloud Hypervisor is the product's name")]
pub(super) enum Hypervisor {
    Qemu,
    Firecracker,
    CloudHypervisor,
    Crosvm,
    Kvmtool,
}

impl Hypervisor {
    /// By a program's path or name.
    pub(super) fn of(program: &str) -> Option<Self> {
        let program = program.strip_suffix(" (deleted)").unwrap_or(program);
        match program.rsplit('/').next()? {
            "qemu" | "kvm" | "qemu-kvm" => Some(Self::Qemu),
            "firecracker" => Some(Self::Firecracker),
            "cloud-hypervisor" => Some(Self::CloudHypervisor),
            "crosvm" => Some(Self::Crosvm),
            "lkvm" | "kvmtool" => Some(Self::Kvmtool),
            name if name.starts_with("qemu-system-") => Some(Self::Qemu),
            // /proc/PID/comm cuts after 15 characters.
            "cloud-hyperviso" => Some(Self::CloudHypervisor),
            _ => None,
        }
    }

    /// As the contract's `manager`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::CloudHypervisor => "cloud-hypervisor",
            Self::Crosvm => "crosvm",
            Self::Kvmtool => "kvmtool",
        }
    }
}

/// A guest's network card and the tap behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Card {
    /// The guest's address.
    pub(super) mac: Option<MacAddress>,
    /// The tap by name.
    pub(super) interface: Option<String>,
    /// The tap by descriptor numbers of the process.
    pub(super) descriptors: Vec<u32>,
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CommandLine {
    pub(super) name: Option<String>,
    pub(super) uuid: Option<String>,
    pub(super) cards: Vec<Card>,
    /// libvirt's own files are among the arguments.
    pub(super) libvirt: bool,
    /// The VM id that Proxmox gives.
    pub(super) proxmox: Option<u32>,
}

/// `arguments` as in `/proc/PID/cmdline`, the program first.
pub(super) fn parse(arguments: &[String]) -> CommandLine {
    let mut found = CommandLine::default();
    let mut qemu = Qemu::default();
    found.libvirt = arguments.iter().any(|argument| argument.contains("/libvirt/qemu/"));
    let mut rest = arguments.iter().skip(1).map(String::as_str).peekable();
    while let Some(argument) = rest.next() {
        let Some(option) = argument.strip_prefix('-') else { continue };
        let option = option.strip_prefix('-').unwrap_or(option);
        // `--id=web1`, as some parsers allow; QEMU's own options have no `=`.
        let (option, value) = match option.split_once('=') {
            Some((option, value)) => (option, value),
            None => (option, rest.peek().copied().unwrap_or_default()),
        };
        match option {
            "name" => found.name = options(value, "guest").remove("guest"),
            "uuid" => found.uuid = Some(value.to_owned()),
            // Firecracker: `--id web1`; Proxmox: `-id 100`.
            "id" if argument.starts_with("--") => found.name = Some(value.to_owned()),
            "id" => found.proxmox = value.parse().ok(),
            "device" => qemu.device(&options(value, "driver")),
            "netdev" => qemu.netdev(options(value, "type")),
            "nic" => found.cards.extend(nic(&options(value, "type"))),
            // Cloud Hypervisor takes several cards after one `--net`.
            "net" if argument.starts_with("--") => {
                let values = rest.clone().take_while(|value| !value.starts_with('-'));
                found.cards.extend(values.filter_map(|value| cloud_hypervisor_net(&options(value, "id"))));
            }
            "net" => qemu.legacy(options(value, "type")),
            _ => {}
        }
    }
    if found.proxmox.is_some() && !arguments.iter().any(|argument| argument.contains("/qemu-server/")) {
        found.proxmox = None;
    }
    found.cards.extend(qemu.cards());
    found.name = found.name.filter(|name| !name.is_empty());
    found
}

type Options = BTreeMap<String, String>;

/// `virtio-net-pci,netdev=n0,mac=…` or `{"driver":"virtio-net-pci",…}`. A first word without `=` is the value of
/// `implied`; a doubled comma is a comma.
fn options(text: &str, implied: &str) -> Options {
    if text.starts_with('{') {
        return json_options(text);
    }
    let mut options = Options::new();
    for (number, word) in words(text).into_iter().enumerate() {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key.to_owned(), value.to_owned()),
            None if number == 0 => (implied.to_owned(), word),
            None => (word, "on".to_owned()),
        };
        options.insert(key, value);
    }
    options
}

fn words(text: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ',' && characters.next_if_eq(&',').is_none() {
            words.push(String::new());
        } else if let Some(word) = words.last_mut() {
            word.push(character);
        }
    }
    words
}

fn json_options(text: &str) -> Options {
    let Ok(serde_json::Value::Object(object)) = serde_json::from_str(text) else { return Options::new() };
    let plain = |value| match value {
        serde_json::Value::String(text) => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        serde_json::Value::Bool(_)
        | serde_json::Value::Null
        | serde_json::Value::Array(_)
        | serde_json::Value::Object(_) => None,
    };
    object.into_iter().filter_map(|(key, value)| Some((key, plain(value)?))).collect()
}

/// The two halves of a card, which name each other by id.
#[derive(Default)]
struct Qemu {
    /// (MAC, netdev id)
    devices: Vec<(Option<MacAddress>, String)>,
    netdevs: BTreeMap<String, Options>,
    legacy_cards: Vec<Option<MacAddress>>,
    legacy_taps: Vec<Options>,
}

impl Qemu {
    fn device(&mut self, options: &Options) {
        if let Some(netdev) = options.get("netdev") {
            self.devices.push((mac(options, "mac"), netdev.clone()));
        }
    }

    fn netdev(&mut self, options: Options) {
        if let Some(id) = options.get("id") {
            self.netdevs.insert(id.clone(), options);
        }
    }

    /// `-net nic,macaddr=… -net tap,ifname=…`
    fn legacy(&mut self, options: Options) {
        match options.get("type").map(String::as_str) {
            Some("nic") => self.legacy_cards.push(mac(&options, "macaddr")),
            Some("tap") => self.legacy_taps.push(options),
            _ => {}
        }
    }

    fn cards(self) -> Vec<Card> {
        let paired = self.devices.into_iter().filter_map(|(mac, id)| card(mac, self.netdevs.get(&id)?));
        // Without names the first card goes with the first tap.
        let legacy = self.legacy_cards.into_iter().zip(&self.legacy_taps).filter_map(|(mac, tap)| card(mac, tap));
        paired.chain(legacy).collect()
    }
}

fn nic(options: &Options) -> Option<Card> {
    card(mac(options, "mac"), options)
}

fn card(mac: Option<MacAddress>, options: &Options) -> Option<Card> {
    if !matches!(options.get("type").map(String::as_str), Some("tap" | "bridge")) {
        return None;
    }
    let numbers =
        |key: &str| options.get(key).into_iter().flat_map(|text| text.split(':')).filter_map(|n| n.parse().ok());
    let descriptors = numbers("fd").chain(numbers("fds")).collect();
    Some(Card { mac, interface: options.get("ifname").cloned(), descriptors })
}

/// `--net tap=vmtap0,mac=…` or `--net fd=[3,4],mac=…`; `mac` is the guest's.
fn cloud_hypervisor_net(options: &Options) -> Option<Card> {
    let descriptors = options.get("fd").and_then(|fd| fd.trim_matches(['[', ']']).parse().ok()).into_iter().collect();
    let card = Card { mac: mac(options, "mac"), interface: options.get("tap").cloned(), descriptors };
    (card.interface.is_some() || !card.descriptors.is_empty()).then_some(card)
}

fn mac(options: &Options, key: &str) -> Option<MacAddress> {
    options.get(key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn parsed(line: &str) -> CommandLine {
        parse(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[rstest]
    #[case::guest_key("qemu-system-x86_64 -name guest=web1,debug-threads=on -S", Some("web1"))]
    #[case::short_form("qemu-system-x86_64 -name web1", Some("web1"))]
    #[case::short_form_with_more("kvm -id 100 -name web1,debug-threads=on", Some("web1"))]
    #[case::two_dashes("qemu-kvm --name guest=db", Some("db"))]
    #[case::a_comma_in_the_name("qemu-kvm -name guest=a,,b,process=x", Some("a,b"))]
    #[case::without_a_name("qemu-kvm -m 1024", None)]
    #[case::the_value_is_missing("qemu-kvm -name", None)]
    #[case::firecracker("firecracker --api-sock /run/f.sock --id web1", Some("web1"))]
    #[case::firecracker_equals("firecracker --id=web1", Some("web1"))]
    fn names(#[case] line: &str, #[case] name: Option<&str>) {
        assert_eq!(parsed(line).name.as_deref(), name);
    }

    fn one_card(line: &str) -> Card {
        let cards = parsed(line).cards;
        assert_eq!(cards.len(), 1, "{line}");
        cards[0].clone()
    }

    #[rstest]
    #[case::by_name("q -netdev tap,id=n0,ifname=tap3,script=no -device virtio-net-pci,netdev=n0,mac=52:54:00:00:00:01")]
    #[case::the_other_way_round("q -device e1000,mac=52:54:00:00:00:01,netdev=n0 -netdev type=tap,ifname=tap3,id=n0")]
    #[case::nic("q -nic tap,ifname=tap3,mac=52:54:00:00:00:01,model=virtio")]
    #[case::legacy("q -net nic,macaddr=52:54:00:00:00:01 -net tap,ifname=tap3")]
    #[case::cloud_hypervisor("cloud-hypervisor --net tap=tap3,mac=52:54:00:00:00:01,ip=,mask=")]
    fn cards_by_interface_name(#[case] line: &str) {
        let card = one_card(line);
        assert_eq!(card.mac.unwrap().to_string(), "52:54:00:00:00:01");
        assert_eq!(card.interface.as_deref(), Some("tap3"));
    }

    #[rstest]
    #[case::one_queue(r#"q -netdev {"type":"tap","fd":"31","vhost":true,"vhostfd":"33","id":"hostnet0"} -device {"driver":"virtio-net-pci","netdev":"hostnet0","id":"net0","mac":"52:54:00:00:00:01","bus":"pci.1"}"#, &[31])]
    #[case::more_queues("q -netdev tap,fds=31:32,id=h -device virtio-net-pci,mq=on,netdev=h,mac=52:54:00:00:00:01", &[31, 32])]
    fn cards_by_descriptor(#[case] line: &str, #[case] descriptors: &[u32]) {
        let card = one_card(line);
        assert_eq!(card.mac.unwrap().to_string(), "52:54:00:00:00:01");
        assert_eq!(card.descriptors, descriptors);
    }

    #[rstest]
    #[case::user_network("q -netdev user,id=n0 -device e1000,netdev=n0,mac=52:54:00:00:00:01")]
    #[case::broken_json(r#"q -netdev {"type":"tap" -device {"driver"#)]
    #[case::json_of_another_shape("q -device [1] -netdev {}")]
    #[case::commas_only("q -netdev ,,,, -device ,,,=,,")]
    #[case::nothing("")]
    fn nonsense_and_other_networks_give_no_card(#[case] line: &str) {
        assert_eq!(parsed(line).cards, []);
    }

    #[test]
    fn cloud_hypervisor_takes_several_cards_after_one_option() {
        let cards = parsed("cloud-hypervisor --net tap=a tap=b,mac=52:54:00:00:00:01 --cpus boot=2").cards;
        assert_eq!(cards.iter().map(|card| card.interface.as_deref().unwrap()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn proxmox_is_believed_with_its_own_files_only() {
        assert_eq!(parsed("kvm -id 100 -pidfile /var/run/qemu-server/100.pid").proxmox, Some(100));
        assert_eq!(parsed("kvm -id 100").proxmox, None);
    }

    #[rstest]
    #[case("/usr/bin/qemu-system-x86_64", Some("qemu"))]
    #[case("/usr/libexec/qemu-kvm (deleted)", Some("qemu"))]
    #[case("cloud-hyperviso", Some("cloud-hypervisor"))]
    #[case("/usr/bin/python3.11", None)]
    #[case("", None)]
    fn hypervisors_by_program(#[case] program: &str, #[case] name: Option<&str>) {
        assert_eq!(Hypervisor::of(program).map(Hypervisor::name), name);
    }
}
