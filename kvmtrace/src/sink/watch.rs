//! The lines of `watch`, as text and as JSON, with the time of the host's zone.

use super::escape::escape;
use super::style::Style;
use crate::diagnose::report::Severity;
use crate::diagnose::watch::{Notice, NoticeKind};
use crate::event::Timestamp;
use jiff::tz::{Offset, TimeZone};
use serde::Serialize;
use std::io::{self, Write};

/// The time zone that times are shown in.
#[derive(Clone, Debug)]
pub struct Zone(TimeZone);

impl Zone {
    /// By its offset (`+02:00`), else by its IANA name and what the file of that name says (`tzfile(5)`); UTC where that is no
    /// time zone.
    pub fn new(name: &str, file: impl Fn(&str) -> Option<Vec<u8>>) -> Self {
        let named = || TimeZone::tzif(name, &file(name)?).ok();
        Self(offset(name).map(TimeZone::fixed).or_else(named).unwrap_or(TimeZone::UTC))
    }

    fn show(&self, time: Timestamp, format: &str) -> String {
        let time = jiff::Timestamp::from_nanosecond(i128::from(time.0)).unwrap_or_default();
        time.to_zoned(self.0.clone()).strftime(format).to_string()
    }
}

/// `+02:00`, `-0330`
fn offset(text: &str) -> Option<Offset> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let digits: String = text.strip_prefix(['+', '-'])?.chars().filter(|c| *c != ':').collect();
    let (hours, minutes) = digits.split_at_checked(2)?;
    let (hours, minutes): (i32, i32) = (hours.parse().ok()?, minutes.parse().ok()?);
    Offset::from_seconds(sign * (hours * 3600 + minutes * 60)).ok()
}

/// Writes a line for people: time, cause or kind, guest, flow, words.
pub fn text(notice: &Notice, zone: &Zone, style: Style, out: &mut impl Write) -> io::Result<()> {
    let guest = notice.guest.as_deref().map(|guest| format!("{}  ", escape(guest))).unwrap_or_default();
    let kind =
        serde_json::to_value(notice.kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let word = match (notice.kind, notice.cause) {
        (NoticeKind::Total, _) | (_, None) => kind,
        (_, Some(cause)) => cause.id().to_owned(),
    };
    let severity = if notice.cause.is_some() { Severity::Error } else { Severity::Info };
    writeln!(
        out,
        "{}  {}  {guest}{}  {}",
        style.dim(&zone.show(notice.time, "%H:%M:%S%.3f%:z")),
        style.severity(severity, &word),
        escape(&notice.flow),
        escape(&notice.text)
    )
}

/// Writes a JSON object: the notice, and its time in the host's zone.
pub fn json(notice: &Notice, zone: &Zone, out: &mut impl Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        #[serde(flatten)]
        notice: &'a Notice,
        local_time: String,
    }
    let local_time = zone.show(notice.time, "%Y-%m-%dT%H:%M:%S%.9f%:z");
    super::json::line(&Line { notice, local_time }, out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_the_zone_of_the_host() {
        let time = Timestamp(1_795_000_000_123_456_789);
        let show = |name: &str| Zone::new(name, |_| None).show(time, "%H:%M:%S%.3f%:z");
        assert_eq!(show("UTC"), "11:06:40.123+00:00");
        assert_eq!(show("+02:00"), "13:06:40.123+02:00");
        assert_eq!(show("-0330"), "07:36:40.123-03:30");
        assert_eq!(show("../../etc/passwd"), "11:06:40.123+00:00");
        let Ok(berlin) = std::fs::read("/usr/share/zoneinfo/Europe/Berlin") else { return };
        let zone = Zone::new("Europe/Berlin", |_| Some(berlin.clone()));
        assert_eq!(zone.show(time, "%H:%M:%S%.3f%:z"), "12:06:40.123+01:00");
    }
}
