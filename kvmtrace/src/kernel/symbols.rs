//! Which function an address lies in: `/proc/kallsyms`.

use std::io::BufRead as _;

/// The kernel's functions, ordered by address.
#[derive(Clone, Debug, Default)]
pub struct Symbols {
    addresses: Vec<(u64, u32)>,
    names: String,
}

impl Symbols {
    /// Reads `/proc/kallsyms`. Empty when it can't be read or hides the addresses (`kernel.kptr_restrict`).
    pub fn read() -> Self {
        let Ok(file) = std::fs::File::open("/proc/kallsyms") else { return Self::default() };
        let lines = std::io::BufReader::with_capacity(1 << 16, file).lines();
        Self::parse(lines.map_while(Result::ok))
    }

    /// From lines such as `ffffffff81000000 T _text` or `ffffffffc0001000 t tun_net_xmit [tun]`.
    fn parse(lines: impl Iterator<Item = String>) -> Self {
        let mut symbols = Self::default();
        for line in lines {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(kind), Some(name)) = (words.next(), words.next(), words.next()) else { continue };
            let Ok(address) = u64::from_str_radix(address, 16) else { continue };
            if address == 0 || !matches!(kind, "t" | "T" | "w" | "W") {
                continue;
            }
            let Ok(start) = u32::try_from(symbols.names.len()) else { break };
            symbols.names.push_str(name);
            symbols.names.push('\n');
            symbols.addresses.push((address, start));
        }
        // Stable: of several names of one address the first stays first.
        symbols.addresses.sort_by_key(|(address, _)| *address);
        symbols.addresses.dedup_by_key(|(address, _)| *address);
        symbols
    }

    /// Nothing is known.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty()
    }

    /// The function that `address` lies in, and how far in.
    pub fn resolve(&self, address: u64) -> Option<(&str, u32)> {
        let after = self.addresses.partition_point(|(start, _)| *start <= address);
        let (start, name) = self.addresses.get(after.checked_sub(1)?)?;
        // Functions are shorter; what lies farther behind the last one is no function.
        let offset = u32::try_from(address - start).ok().filter(|offset| *offset < 1 << 20)?;
        // GCC's clones: `ip_rcv_core.constprop.0`, `nf_hook_slow.part.0`, `foo.isra.0`, `bar.cold`.
        let name = self.names.get(*name as usize..)?.split('\n').next()?;
        Some((name.split('.').next().unwrap_or(name), offset))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_lie_in_the_function_before_them() {
        let text = "ffffffff81000100 T ip_rcv\nffffffff81000000 T ip_forward\nffffffff81000200 d data\n\
                    ffffffffc0001000 t tun_net_xmit.isra.0\t[tun]\nnonsense\n0000000000000000 T hidden";
        let symbols = Symbols::parse(text.lines().map(str::to_owned));
        assert_eq!(symbols.resolve(0xffff_ffff_8100_0046), Some(("ip_forward", 0x46)));
        assert_eq!(symbols.resolve(0xffff_ffff_8100_0100), Some(("ip_rcv", 0)));
        assert_eq!(symbols.resolve(0xffff_ffff_c000_1010), Some(("tun_net_xmit", 0x10)));
        assert_eq!(symbols.resolve(0x1000), None);
        assert_eq!(symbols.resolve(u64::MAX), None);
    }

    #[test]
    fn a_kernel_that_hides_its_addresses_gives_nothing() {
        assert!(Symbols::parse(["0000000000000000 T ip_rcv".to_owned()].into_iter()).is_empty());
    }
}
