//! Text that is safe to draw: hostile bytes neutralised, widths that hold, numbers that fit.
//!
//! A guest chooses its name and its packets, so nothing of it may reach the terminal as it is. [`clean`] keeps only
//! characters that occupy exactly one column and that no terminal reorders; everything else becomes `�`. After it,
//! one `char` is one column.

use crate::diagnose::report::FlowReport;
use crate::event::{Protocol, Timestamp};
use std::borrow::Cow;
use unicode_width::UnicodeWidthChar as _;

/// What stands for a character that may not be drawn.
const REPLACEMENT: char = '\u{fffd}';

/// The character moves nothing, rings nothing, colours nothing, hides nothing, joins nothing and takes one column.
///
/// A list of what is allowed, since what terminals do with the rest (marks that join the character before, scripts that
/// run from right to left, characters two columns wide) differs between them.
fn is_harmless(character: char) -> bool {
    let script = matches!(u32::from(character),
        0x20..=0x7e // ASCII
        | 0xa1..=0xac | 0xae..=0x2ff // Latin
        | 0x370..=0x482 | 0x48a..=0x587 | 0x1e00..=0x1fff // Greek, Cyrillic, Armenian
        | 0x2010..=0x2027 | 0x2030..=0x205e | 0x20a0..=0x20bf | 0x2190..=0x2bff | 0xfffd); // punctuation, symbols
    script && character.width() == Some(1)
}

/// `text` with every character that could harm the screen replaced. Each character of the result takes one column.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|character| if is_harmless(character) { character } else { REPLACEMENT }).collect())
}

/// `text` cleaned and cut to at most `width` columns, the cut shown by `…`.
pub(super) fn cut(text: &str, width: usize) -> String {
    let text = clean(text);
    if text.chars().count() <= width {
        return text.into_owned();
    }
    let mut kept: String = text.chars().take(width.saturating_sub(1)).collect();
    if width > 0 {
        kept.push('…');
    }
    kept
}

/// `text` cleaned and made exactly `width` columns wide, on the left.
pub(super) fn fit(text: &str, width: usize) -> String {
    let text = cut(text, width);
    format!("{text:<width$}")
}

/// `text` cleaned and made exactly `width` columns wide, on the right.
pub(super) fn fit_right(text: &str, width: usize) -> String {
    let text = cut(text, width);
    format!("{text:>width$}")
}

/// `text` cleaned and broken into lines of at most `width` columns, between words where that is possible.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut columns = 0;
    for word in clean(text).split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if columns > 0 && columns + 1 + word.len() > width {
            lines.push(std::mem::take(&mut line));
            columns = 0;
        } else if columns > 0 {
            line.push(' ');
            columns += 1;
        }
        while word.len() > width {
            lines.push(word.drain(..width).collect());
        }
        columns += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}

/// A number in at most five columns: `99999`, `123k`, `4.5M`.
pub(super) fn number(value: u64) -> String {
    if value < 100_000 { value.to_string() } else { scaled(value) }
}

/// A number in at most four columns: `999`, `1.2k`, `12k`, `4.5M`.
pub(super) fn scaled(value: u64) -> String {
    let mut unit = "";
    let mut divisor = 1;
    for larger in ["k", "M", "G", "T", "P", "E"] {
        // Half a unit of the last digit shown: 999_950 is 1.0M rather than 1000k.
        if value / divisor + u64::from(value % divisor >= divisor.div_ceil(2) && divisor > 1) < 1_000 {
            break;
        }
        unit = larger;
        divisor *= 1_000;
    }
    if divisor == 1 {
        return value.to_string();
    }
    let rounded = |value: u128| (value + u128::from(divisor) / 2) / u128::from(divisor);
    let (whole, tenths) = (rounded(u128::from(value)), rounded(u128::from(value) * 10));
    if tenths < 100 { format!("{}.{}{unit}", tenths / 10, tenths % 10) } else { format!("{whole}{unit}") }
}

/// A rate in bits, as links are measured: `3.4Mbit/s`.
pub(super) fn bits_per_second(bytes_per_second: u64) -> String {
    format!("{}bit/s", scaled(bytes_per_second.saturating_mul(8)))
}

/// A duration in at most six columns: `850ns`, `18µs`, `1.2ms`, `3.0s`.
pub(super) fn duration(nanoseconds: u64) -> String {
    let (unit, divisor) = match nanoseconds {
        0..1_000 => return format!("{nanoseconds}ns"),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    let tenths = nanoseconds / (divisor / 10);
    if tenths < 100 { format!("{}.{}{unit}", tenths / 10, tenths % 10) } else { format!("{}{unit}", tenths / 10) }
}

/// A time span as people say it: `7s`, `12m04s`, `3h05m`, `2d03h`.
pub(super) fn elapsed(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h{:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// The time of day in UTC with milliseconds: `15:28:12.004`.
pub(super) fn time_of_day(time: Timestamp) -> String {
    let text = time.to_string();
    text.get(11..23).unwrap_or(&text).to_owned()
}

/// A sort key by which `web2` comes before `web10`.
pub(super) fn natural(name: &str) -> (String, u64, String) {
    let stem = name.trim_end_matches(|character: char| character.is_ascii_digit());
    let number = name[stem.len()..].parse().unwrap_or(u64::MAX);
    (stem.to_owned(), number, name.to_owned())
}

/// The protocol, and what kind of message where that tells flows apart.
pub(super) fn protocol(flow: &FlowReport) -> Cow<'_, str> {
    let kind = match flow.key.protocol {
        Protocol::Icmp { kind: 8, .. } | Protocol::Icmpv6 { kind: 128, .. } => "echo",
        Protocol::Icmp { kind: 0, .. } | Protocol::Icmpv6 { kind: 129, .. } => "reply",
        Protocol::Icmpv6 { kind: 133, .. } => "router?",
        Protocol::Icmpv6 { kind: 134, .. } => "router",
        Protocol::Icmpv6 { kind: 135, .. } => "who",
        Protocol::Icmpv6 { kind: 136, .. } => "is-at",
        protocol if protocol.is_icmp_error() => "error",
        Protocol::Arp { operation: 1 } => "who",
        Protocol::Arp { operation: 2 } => "is-at",
        Protocol::Icmp { .. }
        | Protocol::Icmpv6 { .. }
        | Protocol::Arp { .. }
        | Protocol::Tcp
        | Protocol::Udp
        | Protocol::Sctp
        | Protocol::Ip(_)
        | Protocol::Ethernet(_) => {
            return Cow::Borrowed(&flow.protocol);
        }
    };
    Cow::Owned(format!("{} {kind}", flow.protocol))
}

/// An address with its port: `10.0.0.1:80`, `[fd00::1]:80`, `10.0.0.1`.
pub(super) fn end_point(address: &str, port: Option<u16>) -> String {
    match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use unicode_width::UnicodeWidthStr as _;

    #[test]
    fn what_could_harm_the_screen_is_replaced() {
        for hostile in [
            "\u{1b}[2J",
            "\u{7}",
            "\r\n\t",
            "\u{9b}31m",
            "\u{202e}abc",
            "\u{200b}\u{feff}",
            "e\u{301}",
            "漢字",
            "👩‍👩‍👧",
            "שלום",
            "\u{ad}",
            "\u{2066}x\u{2069}",
            "\u{e0001}",
        ] {
            let cleaned = clean(hostile);
            assert!(cleaned.contains(REPLACEMENT), "{hostile:?} became {cleaned:?}");
            assert_eq!(cleaned.width(), cleaned.chars().count(), "{hostile:?}");
        }
        assert_eq!(clean("café-Ωμέγα-web1"), "café-Ωμέγα-web1");
    }

    #[test]
    fn numbers_stay_short_and_round_to_the_nearest() {
        for (value, short) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1.0k"),
            (1_250, "1.3k"),
            (99_999, "100k"),
            (999_949, "1.0M"),
            (4_500_000, "4.5M"),
            (u64::MAX, "18E"),
        ] {
            assert_eq!(scaled(value), short);
        }
        assert_eq!(number(99_999), "99999");
        assert_eq!(number(123_456), "123k");
    }

    #[test]
    fn durations_take_the_unit_that_reads_best() {
        for (value, short) in [(850, "850ns"), (18_200, "18µs"), (1_234_567, "1.2ms"), (3_000_000_000, "3.0s")] {
            assert_eq!(duration(value), short);
        }
        for (value, short) in [(7, "7s"), (724, "12m04s"), (11_100, "3h05m"), (183_600, "2d03h")] {
            assert_eq!(elapsed(value), short);
        }
    }

    #[test]
    fn numbered_names_stand_in_the_order_of_their_numbers() {
        let mut names = ["web10", "web2", "db", "web1", "web", "99999999999999999999999"];
        names.sort_by_key(|name| natural(name));
        assert_eq!(names, ["99999999999999999999999", "db", "web1", "web2", "web10", "web"]);
    }

    #[test]
    fn lines_break_between_words_and_long_words_anywhere() {
        assert_eq!(wrap("a bridge drops these", 10), ["a bridge", "drops", "these"]);
        assert_eq!(wrap("abcdefghijkl mn", 5), ["abcde", "fghij", "kl mn"]);
        assert_eq!(wrap("", 5), [""]);
    }

    proptest! {
        #[test]
        fn any_text_fits_its_columns(text in any::<String>(), width in 0usize..40) {
            prop_assert_eq!(fit(&text, width).width(), width);
            prop_assert_eq!(fit_right(&text, width).width(), width);
            prop_assert!(wrap(&text, width).iter().all(|line| line.width() <= width.max(1)));
        }

        #[test]
        fn no_number_takes_more_than_its_columns(value in any::<u64>()) {
            prop_assert!(scaled(value).len() <= 4);
            prop_assert!(number(value).len() <= 5);
            prop_assert!(duration(value % 100_000_000_000_000).chars().count() <= 7);
        }
    }
}
