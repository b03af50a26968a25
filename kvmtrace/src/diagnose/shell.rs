//! Words for a shell and for nft, as commands are built of them.

use crate::event::host::{Chain, Link};

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

/// Family, table and chain as a statement of nft's names them; none where nft's grammar has no way to write a name.
pub fn nft_chain(chain: &Chain) -> Option<String> {
    let names = [&chain.family, &chain.table, &chain.name];
    names.iter().all(|name| is_plain(name)).then(|| names.map(String::as_str).join(" "))
}

/// nft's grammar can write this name.
pub(in crate::diagnose) fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c))
}

/// A test for a device in a statement of nft's, by name; by number where the name can't be written there.
pub fn nft_device(word: &str, link: &Link) -> String {
    if link.name.contains(['"', '\\', '*']) {
        format!("{word} {}", link.index.0)
    } else {
        format!("{word}name \"{}\"", link.name)
    }
}

/// Deletes the rules of a chain that bear a comment.
pub fn nft_delete(place: &str, comment: &str) -> String {
    let list = quote(&format!("list chain {place}"));
    // Networks in a comment hold slashes; no address or name of a chain holds a `|`.
    let pattern = quote(&format!("s|.*comment \"{comment}\" # handle ||p"));
    format!("for h in $(nft -a {list} | sed -n {pattern}); do nft delete rule {place} handle \"$h\"; done")
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
