//! Times of a recording, as they are typed.

use crate::event::Timestamp;

/// A time of the recording: seconds from its start, or a time of day (UTC).
pub(super) fn parse(text: &str, start: Timestamp) -> Option<Timestamp> {
    const SECOND: u64 = 1_000_000_000;
    const DAY: u64 = 86_400 * SECOND;
    let text = text.trim();
    let parts = text.split(':').map(|part| part.parse::<u64>().ok()).collect::<Option<Vec<u64>>>();
    let in_day = match (parts?.as_slice(), text.contains(':')) {
        ([seconds], false) => return Some(Timestamp(start.0.checked_add(seconds.checked_mul(SECOND)?)?)),
        ([hours @ 0..24, minutes @ 0..60], true) => (hours * 60 + minutes) * 60 * SECOND,
        ([hours @ 0..24, minutes @ 0..60, seconds @ 0..60], true) => ((hours * 60 + minutes) * 60 + seconds) * SECOND,
        _ => return None,
    };
    let time = start.0 / DAY * DAY + in_day;
    // Before the start can only mean the day after, in a recording over midnight.
    Some(Timestamp(if time + 60 * SECOND < start.0 { time + DAY } else { time }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_times_are_seconds_or_times_of_day() {
        let second = 1_000_000_000;
        // 2026-11-18T11:06:40Z
        let start = Timestamp(1_795_000_000 * second);
        let after = |text: &str| parse(text, start).map(|time| time.0.wrapping_sub(start.0) / second);
        assert_eq!(after("90"), Some(90));
        assert_eq!(after("11:07:20"), Some(40));
        assert_eq!(after("11:10"), Some(200));
        assert_eq!(after("00:00"), Some(46_400), "the midnight to come");
        for nonsense in ["", "x", "25:00", "14:60", "1:2:3:4", "-5", "14:"] {
            assert_eq!(after(nonsense), None, "{nonsense}");
        }
    }
}
