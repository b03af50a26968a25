//! The columns of `--partition`, and the directories that they name.

use crate::event::Timestamp;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::str::FromStr;

/// Bytes of a host's name in a directory's name.
const LONGEST_NAME: usize = 60;

/// The columns that make the directories, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// `host=…`
    Host,
    /// `date=…`
    Date,
    /// `host=…/date=…`
    HostDate,
    /// `date=…/host=…`
    DateHost,
}

/// Not a partition.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no partition; there are host, date and host,date")]
pub struct BadPartition(String);

impl FromStr for Partition {
    type Err = BadPartition;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let columns: Vec<&str> = text.split(',').map(str::trim).collect();
        match columns.as_slice() {
            ["host"] => Ok(Self::Host),
            ["date"] => Ok(Self::Date),
            ["host", "date"] => Ok(Self::HostDate),
            ["date", "host"] => Ok(Self::DateHost),
            _ => Err(BadPartition(text.to_owned())),
        }
    }
}

impl Partition {
    /// The directory of a host's events of a day.
    pub(super) fn directory(self, host: &str, time: Timestamp) -> PathBuf {
        let host = format!("host={}", encoded(host));
        let date = format!("date={}", time.to_string().get(..10).unwrap_or_default());
        match self {
            Self::Host => PathBuf::from(host),
            Self::Date => PathBuf::from(date),
            Self::HostDate => PathBuf::from(host).join(date),
            Self::DateHost => PathBuf::from(date).join(host),
        }
    }
}

/// A value in a directory's name: Hive writes what a path or its own names may not have as `%2F`.
pub(super) fn encoded(value: &str) -> String {
    if value.is_empty() {
        return "__HIVE_DEFAULT_PARTITION__".to_owned();
    }
    let end = value.floor_char_boundary(LONGEST_NAME);
    let mut text = String::new();
    for byte in value.get(..end).unwrap_or_default().bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").ok();
        }
    }
    text
}
