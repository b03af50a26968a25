//! Newtypes for ids and units.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// A device's index in its network namespace; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IfIndex(pub u32);

impl IfIndex {
    /// The kernel's 0 means "none".
    pub fn from_kernel(index: u32) -> Option<Self> {
        (index != 0).then_some(Self(index))
    }
}

impl fmt::Display for IfIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "if{}", self.0)
    }
}

/// An IPv6 address of one link alone (`fe80::/10`), which each device has of itself. IPv4's `169.254/16` is none: somebody has
/// to set that, and Linux routes it as any other.
pub fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// An address that a machine may give itself where nobody gives it one: a link-local one, or one of `169.254/16` (RFC 3927).
pub fn is_self_assigned(address: IpAddr) -> bool {
    is_link_local(address) || matches!(address, IpAddr::V4(address) if address.is_link_local())
}

/// A duration in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanoseconds(pub u64);

/// A point in time: nanoseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The time since `earlier`, zero if that is later.
    pub fn since(self, earlier: Self) -> Nanoseconds {
        Nanoseconds(self.0.saturating_sub(earlier.0))
    }
}

/// RFC 3339 with nanoseconds, UTC.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // jiff covers years -9999 to 9999; u64 nanoseconds end in 2554, so this can't fail.
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(time) => write!(f, "{time:.9}"),
            Err(_) => f.write_str("1970-01-01T00:00:00.000000000Z"),
        }
    }
}

/// An Ethernet address.
///
/// Text where a person reads it (JSON), six bytes in a recording.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// All zero: none known.
    pub fn is_zero(self) -> bool {
        self.0 == [0; 6]
    }

    /// The group bit is set: multicast or broadcast.
    pub fn is_multicast(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// 01:80:c2:00:00:00 to …:0f, groups that do not leave the link: which one (`is_link_local_ether_addr`).
    pub fn reserved_group(self) -> Option<u8> {
        let [a, b, c, d, e, last] = self.0;
        ([a, b, c, d, e] == [0x01, 0x80, 0xc2, 0, 0] && last < 16).then_some(last)
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mac = self.0;
        write!(f, "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
    }
}

impl fmt::Debug for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Not six hexadecimal bytes with colons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address; one looks like 52:54:00:12:34:56")]
pub struct BadMacAddress(String);

impl FromStr for MacAddress {
    type Err = BadMacAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut address = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut address {
            let part = parts.next().filter(|part| (1..=2).contains(&part.len()));
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| BadMacAddress(text.to_owned()))?;
        }
        if parts.next().is_some() { Err(BadMacAddress(text.to_owned())) } else { Ok(Self(address)) }
    }
}

impl Serialize for MacAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { self.0.serialize(serializer) }
    }
}

impl<'de> Deserialize<'de> for MacAddress {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 6]>::deserialize(deserializer).map(Self)
        }
    }
}

/// An address or network with its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Network {
    /// The address (of a host or of the network).
    pub address: IpAddr,
    /// Prefix length in bits: 0–32 or 0–128.
    pub prefix: u8,
}

impl Network {
    /// `address` lies in this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                let shift = 32 - u32::from(self.prefix.min(32));
                (u32::from(network) ^ u32::from(address)).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let shift = 128 - u32::from(self.prefix.min(128));
                (u128::from(network) ^ u128::from(address)).checked_shr(shift).unwrap_or(0) == 0
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }

    /// The network of the address: without the bits of a host.
    #[must_use]
    pub fn whole(self) -> Self {
        let address = match self.address {
            IpAddr::V4(address) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
                IpAddr::from((u32::from(address) & mask).to_be_bytes())
            }
            IpAddr::V6(address) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix.min(128))).unwrap_or(0);
                IpAddr::from((u128::from(address) & mask).to_be_bytes())
            }
        };
        Self { address, ..self }
    }

    /// The address of all its machines (RFC 919); none for IPv6, and for networks without room for one (RFC 3021).
    pub fn broadcast(&self) -> Option<Ipv4Addr> {
        let IpAddr::V4(address) = self.address else { return None };
        let hosts = u32::MAX.checked_shr(self.prefix.into()).filter(|_| self.prefix < 31)?;
        Some(Ipv4Addr::from(u32::from(address) | hosts))
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_rfc_3339_with_nanoseconds() {
        assert_eq!(Timestamp(1_795_000_000_000_000_005).to_string(), "2026-11-18T11:06:40.000000005Z");
    }

    #[test]
    fn mac_addresses_survive_a_round_trip_and_nonsense_is_refused() {
        let text = "52:54:00:aa:00:01";
        assert_eq!(text.parse::<MacAddress>().unwrap().to_string(), text);
        for nonsense in ["", "52:54", "52:54:00:aa:00:01:02", "52:54:00:aa:00:zz", "525400aa0001"] {
            assert!(nonsense.parse::<MacAddress>().is_err(), "{nonsense}");
        }
    }

    #[test]
    fn networks_contain_what_their_prefix_says() {
        let network = |text: &str, prefix| Network { address: text.parse().unwrap(), prefix };
        assert!(network("10.1.0.0", 16).contains("10.1.2.3".parse().unwrap()));
        assert!(!network("10.1.0.0", 16).contains("10.2.0.1".parse().unwrap()));
        assert!(network("0.0.0.0", 0).contains("192.0.2.1".parse().unwrap()));
        assert!(network("::", 0).contains("2001:db8::1".parse().unwrap()));
        assert!(network("fd00::", 8).contains("fd77::1".parse().unwrap()));
        assert!(!network("fd00::", 8).contains("10.0.0.1".parse().unwrap()));
    }
}
