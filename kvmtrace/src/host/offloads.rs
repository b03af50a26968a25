//! What devices leave to their hardware, over ethtool's own netlink family: rtnetlink tells of sizes only.

use super::netlink::{Attributes, Message, Netlink, attribute};
use crate::event::IfIndex;
use crate::event::host::Link;
use std::collections::BTreeMap;
use std::io;

/// `struct genlmsghdr`
const GENERIC_HEADER: usize = 4;
/// The family that tells of the others (`GENL_ID_CTRL`).
const CONTROL: u16 = 16;
// linux/ethtool_netlink.h
const ETHTOOL_MSG_FEATURES_GET: u8 = 11;
const ETHTOOL_A_FEATURES_HEADER: u16 = 1;
const ETHTOOL_A_FEATURES_HW: u16 = 2;
const ETHTOOL_A_FEATURES_ACTIVE: u16 = 4;
const ETHTOOL_A_HEADER_DEV_INDEX: u16 = 1;
const ETHTOOL_A_HEADER_DEV_NAME: u16 = 2;
const ETHTOOL_A_HEADER_FLAGS: u16 = 3;
const ETHTOOL_FLAG_COMPACT_BITSETS: u32 = 1;
const ETHTOOL_A_BITSET_BITS: u16 = 3;
const ETHTOOL_A_BITSET_VALUE: u16 = 4;
const ETHTOOL_A_BITSET_BIT_INDEX: u16 = 1;
const ETHTOOL_A_BITSET_BIT_NAME: u16 = 2;

/// Large receive offload, as `ethtool -k` names it with all others.
const LARGE_RECEIVE: &str = "rx-lro";

/// Notes which devices merge what they receive. A kernel before 5.7 has no such family.
pub(super) fn read(links: &mut BTreeMap<IfIndex, Link>) -> io::Result<()> {
    let Some(named) = links.values().next().map(|link| link.name.clone()) else { return Ok(()) };
    let mut netlink = Netlink::open_generic()?;
    let family = family(&mut netlink, "ethtool")?;
    let name = [named.as_bytes(), b"\0"].concat();
    let header = attribute(ETHTOOL_A_HEADER_DEV_NAME, &name);
    let one = netlink.ask(family, &request(&header))?;
    // The numbers of features change between kernels: one device tells them with their names, the others without.
    let Some(number) = one.iter().find_map(number) else { return Ok(()) };
    let header = attribute(ETHTOOL_A_HEADER_FLAGS, &ETHTOOL_FLAG_COMPACT_BITSETS.to_ne_bytes());
    for message in netlink.dump(family, &request(&header))? {
        if let Some((index, true)) = active(&message, number)
            && let Some(link) = links.get_mut(&index)
        {
            link.large_receive = true;
        }
    }
    Ok(())
}

/// The number that a generic netlink family has on this kernel.
pub(super) fn family(netlink: &mut Netlink, name: &str) -> io::Result<u16> {
    const CTRL_CMD_GETFAMILY: u8 = 3;
    const CTRL_ATTR_FAMILY_ID: u16 = 1;
    const CTRL_ATTR_FAMILY_NAME: u16 = 2;
    let mut body = vec![CTRL_CMD_GETFAMILY, 1, 0, 0];
    body.extend(attribute(CTRL_ATTR_FAMILY_NAME, &[name.as_bytes(), b"\0"].concat()));
    let answers = netlink.ask(CONTROL, &body).map_err(|error| {
        let is_missing = error.kind() == io::ErrorKind::NotFound;
        if is_missing { io::Error::other("this kernel does not tell them over netlink") } else { error }
    })?;
    let number = |message: &Message| message.split(GENERIC_HEADER)?.1.u16(CTRL_ATTR_FAMILY_ID);
    answers.iter().find_map(number).ok_or_else(|| io::Error::other(format!("{name}'s netlink family has no number")))
}

fn request(header: &[u8]) -> Vec<u8> {
    let mut body = vec![ETHTOOL_MSG_FEATURES_GET, 1, 0, 0];
    body.extend(attribute(ETHTOOL_A_FEATURES_HEADER | NESTED, header));
    body
}

/// `NLA_F_NESTED`, which this family insists on.
const NESTED: u16 = 1 << 15;

/// The number of the feature, from an answer with names: what the hardware could do names them all.
fn number(message: &Message) -> Option<usize> {
    let (_, attributes) = message.split(GENERIC_HEADER)?;
    let bits = attributes.nested(ETHTOOL_A_FEATURES_HW).nested(ETHTOOL_A_BITSET_BITS);
    let mut bits = bits.iter().map(|(_, bit)| Attributes(bit));
    let found = bits.find(|bit| bit.text(ETHTOOL_A_BITSET_BIT_NAME).as_deref() == Some(LARGE_RECEIVE))?;
    found.u32(ETHTOOL_A_BITSET_BIT_INDEX)?.try_into().ok()
}

/// Whether a device has the feature on, from an answer without names: words of 32 bits, as the processor has them.
fn active(message: &Message, number: usize) -> Option<(IfIndex, bool)> {
    let (_, attributes) = message.split(GENERIC_HEADER)?;
    let index = attributes.nested(ETHTOOL_A_FEATURES_HEADER).get(ETHTOOL_A_HEADER_DEV_INDEX)?;
    let words = attributes.nested(ETHTOOL_A_FEATURES_ACTIVE).get(ETHTOOL_A_BITSET_VALUE)?;
    let word = super::netlink::read_u32(words.get(number / 32 * 4..)?)?;
    Some((super::links::index(index)?, word >> (number % 32) & 1 == 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(attributes: &[Vec<u8>]) -> Message {
        Message { kind: 21, body: [vec![12, 1, 0, 0], attributes.concat()].concat() }
    }

    #[test]
    fn a_feature_is_found_by_its_name_and_read_by_its_number() {
        let bit = |index: u32, name: &[u8]| {
            let parts = [
                attribute(ETHTOOL_A_BITSET_BIT_INDEX, &index.to_ne_bytes()),
                attribute(ETHTOOL_A_BITSET_BIT_NAME, name),
            ];
            attribute(1 | NESTED, &parts.concat())
        };
        let bits = attribute(ETHTOOL_A_BITSET_BITS | NESTED, &[bit(15, b"rx-gro-hw\0"), bit(37, b"rx-lro\0")].concat());
        let named = message(&[attribute(ETHTOOL_A_FEATURES_HW | NESTED, &bits)]);
        assert_eq!(number(&named), Some(37));

        let device = attribute(ETHTOOL_A_HEADER_DEV_INDEX, &7_u32.to_ne_bytes());
        let told = |words: [u32; 2]| {
            let words: Vec<u8> = words.into_iter().flat_map(u32::to_ne_bytes).collect();
            let value = attribute(ETHTOOL_A_BITSET_VALUE, &words);
            message(&[
                attribute(ETHTOOL_A_FEATURES_HEADER | NESTED, &device),
                attribute(ETHTOOL_A_FEATURES_ACTIVE | NESTED, &value),
            ])
        };
        assert_eq!(active(&told([0, 1 << 5]), 37), Some((IfIndex(7), true)));
        assert_eq!(active(&told([u32::MAX, !(1 << 5)]), 37), Some((IfIndex(7), false)));
        assert_eq!(active(&told([0, 1 << 5]), 200), None, "beyond what the kernel tells");
    }

    #[test]
    fn answers_that_are_cut_tell_nothing() {
        for body in [vec![], vec![12, 1, 0, 0], vec![12, 1, 0, 0, 8, 0, 2]] {
            let message = Message { kind: 21, body };
            assert_eq!((number(&message), active(&message, 37)), (None, None));
        }
    }
}
