//! Colour, where it is wanted. State is never told by colour alone.

use crate::diagnose::report::Severity;

/// Paints, or does not.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Use colour.
    pub color: bool,
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// A heading.
    pub fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    /// What matters less.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// Something to paste.
    pub fn command(self, text: &str) -> String {
        self.paint("36", text)
    }

    /// By its gravity.
    pub fn severity(self, severity: Severity, text: &str) -> String {
        match severity {
            Severity::Ok => self.paint("32", text),
            Severity::Info => self.paint("34", text),
            Severity::Warning => self.paint("33", text),
            Severity::Error => self.paint("1;31", text),
        }
    }
}
