//! Cures: commands with this host's names, safe to paste into a root shell, each with its undo.

pub mod device;
pub mod manager;
pub mod netfilter;
pub mod netfilter_match;
mod netfilter_traced;
pub mod persist;
pub mod sysctl;

use super::report::Fix;

/// A word of a shell command; quoted when it holds anything but letters, digits and what never needs it.
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,=@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    // A line break can be in no name of the kernel's; the contract wants one line.
    let word: String = word.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", word.replace('\'', r"'\''"))
}

impl Fix {
    /// A command and the one that takes it back.
    pub fn run(command: String, undo: String, why: impl Into<String>) -> Self {
        Self { command: Some(command), undo: Some(undo), why: why.into(), risk: None, persist: None, setting: None }
    }

    /// Nothing to run here: the cure lies in the guest, in the wiring, beyond the host.
    pub fn advice(why: impl Into<String>) -> Self {
        Self { command: None, undo: None, why: why.into(), risk: None, persist: None, setting: None }
    }

    /// With what else it touches.
    #[must_use]
    pub fn risk(self, risk: impl Into<String>) -> Self {
        Self { risk: Some(risk.into()), ..self }
    }

    /// With what it sets ([`persist::complete`] then tells where this host keeps it).
    #[must_use]
    pub fn setting(self, setting: persist::Setting) -> Self {
        Self { setting: Some(setting), ..self }
    }

    /// With how to make it last.
    #[must_use]
    pub fn persist(self, persist: impl Into<String>) -> Self {
        Self { persist: Some(persist.into()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::quote;

    #[test]
    fn words_that_a_shell_would_split_or_run_are_quoted() {
        assert_eq!(quote("vnet0"), "vnet0");
        assert_eq!(quote("br0;reboot"), "'br0;reboot'");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote("a\nb"), "'ab'");
        assert_eq!(quote(""), "''");
    }
}
