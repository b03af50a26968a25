//! How output is shown: colours, width, details.

use crate::cli::{Cli, Color};
use crate::sink::text::View;
use std::io::IsTerminal as _;

/// Colour is wanted on a stream.
pub(super) fn colored(cli: &Cli, stream: &impl std::io::IsTerminal) -> bool {
    match cli.common.color {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => !unwanted_color() && stream.is_terminal(),
    }
}

/// How standard output is shown: as wide as the terminal, or as COLUMNS says.
pub(super) fn view(cli: &Cli) -> View {
    let out = std::io::stdout();
    let terminal = || rustix::termios::tcgetwinsize(&out).ok().map(|size| size.ws_col).filter(|columns| *columns > 0);
    let set = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok());
    let columns = set.or_else(|| if out.is_terminal() { terminal() } else { None });
    View::new(colored(cli, &out), columns, cli.common.verbose > 0)
}

/// The environment asks for no colour.
pub(super) fn unwanted_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|value| value == "dumb")
}
