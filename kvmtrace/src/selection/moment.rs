//! A moment of a recording, as a person writes it.

use crate::event::Timestamp;
use std::str::FromStr;

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// A moment: `2026-11-23T15:28:12Z`, a time of day in UTC (`15:28`, `15:28:12`), or seconds from the start (`90`, `90s`, `2m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A point in time.
    At(Timestamp),
    /// A time of day, in nanoseconds since midnight UTC: its first one after the start.
    OfDay(u64),
    /// Nanoseconds from the start.
    After(u64),
}

/// No moment.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no time: write 2026-11-23T15:28:12Z, 15:28:12 or 15:28 (UTC), or 90, 90s or 2m from the start")]
pub struct MomentError(String);

impl Moment {
    /// The point in time, in a recording that starts at `start`.
    pub fn in_recording(self, start: Timestamp) -> Timestamp {
        match self {
            Self::At(time) => time,
            Self::After(nanoseconds) => Timestamp(start.0.saturating_add(nanoseconds)),
            Self::OfDay(in_day) => {
                let time = start.0 / DAY * DAY + in_day;
                // Before the start can only mean the day after, in a recording over midnight.
                Timestamp(if time + 60 * SECOND < start.0 { time + DAY } else { time })
            }
        }
    }
}

impl FromStr for Moment {
    type Err = MomentError;

    fn from_str(text: &str) -> Result<Self, MomentError> {
        let text = text.trim();
        let error = || MomentError(text.to_owned());
        if let Ok(time) = text.parse::<jiff::Timestamp>() {
            let nanoseconds = u64::try_from(time.as_nanosecond()).map_err(|_before_1970| error())?;
            return Ok(Self::At(Timestamp(nanoseconds)));
        }
        if text.contains(':') {
            let parts: Option<Vec<u64>> = text.split(':').map(|part| part.parse().ok()).collect();
            return match parts.as_deref() {
                Some([hours @ 0..24, minutes @ 0..60]) => Ok(Self::OfDay((hours * 60 + minutes) * 60 * SECOND)),
                Some([hours @ 0..24, minutes @ 0..60, seconds @ 0..60]) => {
                    Ok(Self::OfDay(((hours * 60 + minutes) * 60 + seconds) * SECOND))
                }
                _ => Err(error()),
            };
        }
        let units = [("h", 3_600 * SECOND), ("m", 60 * SECOND), ("s", SECOND)];
        let unit = units.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, *size)));
        let (number, size) = unit.unwrap_or((text, SECOND));
        let number: u64 = number.parse().map_err(|_not_a_number| error())?;
        number.checked_mul(size).map(Self::After).ok_or_else(error)
    }
}
