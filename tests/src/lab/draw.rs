//! What a lab is called by: drawn from a seed, so that kvmtrace can't be tuned to names, addresses, MACs or MTUs.

use anyhow::{Context as _, Result};
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A seed, shown in every failure; `KVMTRACE_LAB_SEED` fixes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// From the environment, else a new one.
    pub fn choose() -> Result<Self> {
        if let Ok(text) = std::env::var("KVMTRACE_LAB_SEED") {
            return Ok(Self(text.trim().parse().with_context(|| format!("KVMTRACE_LAB_SEED is no number: {text}"))?));
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self((u64::from(now.subsec_nanos()) ^ (now.as_secs() << 12)) & 0xffff_ffff))
    }

    /// The numbers that follow from the seed for one subject.
    pub fn draw(self, subject: &str) -> Draw {
        // FNV-1a: each scenario draws differently from one seed, and the same again tomorrow.
        let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Draw(subject.bytes().fold(0xcbf2_9ce4_8422_2325 ^ self.0, hash))
    }
}

impl fmt::Display for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A generator of numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Draw(u64);

impl Draw {
    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from `low` to `high`, both included.
    pub fn number(&mut self, low: u32, high: u32) -> u32 {
        low + (self.bits() % u64::from(high - low + 1)) as u32
    }

    /// One of several.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[(self.bits() % choices.len() as u64) as usize]
    }

    /// Hexadecimal digits.
    pub fn hex(&mut self, digits: usize) -> String {
        format!("{:016x}", self.bits())[..digits].to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_names_again_and_each_subject_its_own() {
        let names = |seed: u64, subject: &str| Seed(seed).draw(subject).hex(12);
        assert_eq!(names(7, "a"), names(7, "a"));
        assert_ne!(names(7, "a"), names(7, "b"));
        assert_ne!(names(7, "a"), names(8, "a"));
    }

    #[test]
    fn numbers_stay_within_their_bounds_and_reach_both() {
        let mut draw = Seed(1).draw("bounds");
        let drawn: Vec<u32> = (0..200).map(|_| draw.number(3, 6)).collect();
        assert!(drawn.iter().all(|number| (3..=6).contains(number)));
        assert!(drawn.contains(&3) && drawn.contains(&6));
    }
}
