//! Small words.

/// `12 of 12 packets`
pub fn share(part: u64, whole: u64) -> String {
    let whole = whole.max(part);
    format!("{part} of {whole} {}", if whole == 1 { "packet" } else { "packets" })
}

/// `1 packet`, `2 packets`
pub fn packets(count: u64) -> String {
    counted(count, "packet")
}

/// One packet was, several were.
pub fn agreeing(sentence: &str) -> String {
    sentence.replace(" packet were ", " packet was ")
}

/// `1 guest`, `2 guests`
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `2 Mbit/s`: a rate of so many bits a second.
pub fn bit_rate(bits: u64) -> String {
    match bits {
        0..10_000 => format!("{bits} bit/s"),
        10_000..10_000_000 => format!("{} kbit/s", bits / 1_000),
        _ => format!("{} Mbit/s", bits / 1_000_000),
    }
}

/// `a, b and c`
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{agreeing, share};

    #[test]
    fn one_packet_was_and_several_were() {
        let said = |part, whole| agreeing(&format!("{} were dropped at eth0.", share(part, whole)));
        assert_eq!(said(1, 1), "1 of 1 packet was dropped at eth0.");
        assert_eq!(said(1, 2), "1 of 2 packets were dropped at eth0.");
    }
}
