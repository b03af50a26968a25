//! Whether output has colours.

use crate::cli::{Cli, Color};

/// Colour is wanted on a stream.
pub(super) fn colored(cli: &Cli, stream: &impl std::io::IsTerminal) -> bool {
    match cli.common.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => !unwanted_color() && stream.is_terminal(),
    }
}

/// The environment asks for no colour.
pub(super) fn unwanted_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|value| value == "dumb")
}
