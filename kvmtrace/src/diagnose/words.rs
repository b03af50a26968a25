//! Small words.

use super::case::Case;

/// `12 of 12 packets`
pub fn share(part: u64, whole: u64) -> String {
    let whole = whole.max(part);
    format!("{part} of {whole} {}", if whole == 1 { "packet" } else { "packets" })
}

/// `1 packet`, `2 packets`
pub fn packets(count: u64) -> String {
    counted(count, "packet")
}

/// `1 guest`, `2 guests`
pub fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// `12 of 12 packets`: how much of the flow the drop took; where none was seen, the whole flow: `12 packets`.
pub fn dropped(case: &Case<'_>) -> String {
    let count = case.focus.as_ref().map_or_else(
        || case.dropped(),
        // Other flows may have died in the same tunnel flow.
        |drop| if drop.is_in_tunnel() { drop.totals.packets.min(case.packets()) } else { drop.totals.packets },
    );
    if count == 0 { packets(case.packets()) } else { share(count, case.packets()) }
}

/// `a, b and c`
pub fn list(items: &[String]) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [rest @ .., last] => format!("{} and {last}", rest.join(", ")),
    }
}
