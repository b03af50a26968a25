//! From the words of `report`, `replay` and `export` to files and what is wanted of them.

use crate::cli;
use crate::filter::Filter;
use crate::selection::{Selection, Window, cause, verdict};
use anyhow::Context as _;
use std::os::fd::IntoRawFd as _;
use std::path::{Path, PathBuf};

/// The files that come first, and the filter that follows.
pub(super) fn files_and_part(words: &[String], part: &cli::Part) -> anyhow::Result<(Vec<PathBuf>, Selection)> {
    let files = words.iter().enumerate().take_while(|(index, word)| *index == 0 || is_file(word)).count();
    let (files, filter) = words.split_at(files);
    let moment = |text: &Option<String>| text.as_deref().map(str::parse).transpose();
    let selection = Selection {
        guests: part.guests.clone(),
        interfaces: part.interfaces.clone(),
        filter: Filter::parse(&filter.join(" "))?,
        cause: part.cause.as_deref().map(cause).transpose()?,
        verdict: part.verdict.as_deref().map(verdict).transpose()?,
        faults_only: part.faults_only,
        window: Window { since: moment(&part.since)?, until: moment(&part.until)? },
        ..Selection::default()
    };
    let files = files.iter().map(|file| if file == "-" { standard_input() } else { Ok(PathBuf::from(file)) });
    Ok((files.collect::<anyhow::Result<_>>()?, selection))
}

/// What comes by standard input, in a file without a name that lasts as long as this process: recordings are read twice.
fn standard_input() -> anyhow::Result<PathBuf> {
    let mut file = tempfile::tempfile().context("standard input: can't be kept in a temporary file")?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file).context("reading standard input")?;
    Ok(PathBuf::from(format!("/proc/self/fd/{}", file.into_raw_fd())))
}

/// No word of a filter looks like this.
fn is_file(word: &str) -> bool {
    word == "-"
        || Path::new(word).extension().is_some_and(|extension| extension == "kvmtrace")
        || Path::new(word).is_file()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_first_and_the_rest_is_a_filter() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let part = cli::Part {
            guests: Vec::new(),
            interfaces: Vec::new(),
            cause: None,
            verdict: None,
            faults_only: false,
            since: None,
            until: None,
        };
        let split = |text: &str| files_and_part(&words(text), &part).map(|(files, part)| (files.len(), part.filter));
        let (files, filter) = split("a.kvmtrace b.kvmtrace host 10.0.0.5 and tcp").unwrap();
        assert_eq!((files, filter.text()), (2, "host 10.0.0.5 and tcp"));
        assert_eq!(split("missing").unwrap().0, 1, "the first word is a file whatever it is called");
        let error = split("a.kvmtrace tpc").unwrap_err().to_string();
        assert_eq!(error, "filter: unknown keyword \"tpc\" (did you mean tcp?)");
    }
}
