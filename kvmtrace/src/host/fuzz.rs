//! What the fuzzer (fuzz/) and tests need: every reader of what others have written on this host, behind one function.

use super::{guests, netfilter, netlink};
use crate::kernel::btf::Btf;

/// Readers that the first byte chooses from.
pub const MOUTHS: u8 = 11;

/// Lets a reader, chosen by the first byte, read the rest. Any bytes are read or refused.
pub fn run(bytes: &[u8]) {
    let Some((mouth, bytes)) = bytes.split_first() else { return };
    let text = String::from_utf8_lossy(bytes);
    match mouth % MOUTHS {
        mouth @ 0..5 => netfilter::fuzz(mouth, &text),
        mouth @ 5..9 => guests::fuzz(mouth - 5, &text),
        9 => {
            for (header, body) in netlink::frames(bytes) {
                let attributes =
                    netlink::Attributes(body.get(usize::from(header.sequence as u8 % 32)..).unwrap_or_default());
                for (kind, _) in attributes.iter().take(64) {
                    let all = (attributes.nested(kind).iter().count(), attributes.text(kind), attributes.address(kind));
                    let numbers =
                        (attributes.u16(kind), attributes.be32(kind), attributes.be64(kind), attributes.mac(kind));
                    std::hint::black_box((all, numbers));
                }
            }
        }
        _ => {
            if let Ok(btf) = Btf::parse(bytes.to_vec()) {
                drop(std::hint::black_box((btf.offset("sk_buff.dev"), btf.enum_values("skb_drop_reason").len())));
                std::hint::black_box(btf.tracepoint_arguments("kfree_skb"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Each seed whole, cut everywhere, and with bytes changed.
    #[test]
    fn no_bytes_break_a_reader() {
        let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/mouths");
        let mut read = 0;
        let mut state = 88_172_645_463_325_252_u64;
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % below as u64).unwrap()
        };
        for seed in std::fs::read_dir(seeds).unwrap() {
            let whole = std::fs::read(seed.unwrap().path()).unwrap();
            run(&whole);
            for _ in 0..300 {
                let mut bytes = whole[..=random(whole.len())].to_vec();
                for _ in 0..random(6) {
                    let at = 1 + random(bytes.len());
                    match (bytes.get_mut(at), random(3)) {
                        (Some(byte), 0) => *byte = random(256) as u8,
                        (Some(byte), 1) => *byte ^= 1 << random(8),
                        (Some(_), _) => bytes.insert(at, b"{}[]\"',:-/ \n\0\xff09"[random(16)]),
                        (None, _) => {}
                    }
                }
                run(&bytes);
                read += 1;
            }
        }
        assert!(read >= 300 * usize::from(MOUTHS), "a seed is missing");
    }
}
