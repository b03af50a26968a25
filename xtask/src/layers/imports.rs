//! What a source file imports, read from its text: paths that begin with `crate`, `super`, `self` or a module of its own, in
//! `use` declarations and anywhere else. Comments, strings and what is compiled for tests only don't count.

use std::collections::BTreeSet;

/// What one file says of modules.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    /// Absolute paths of what it imports, the crate left out: `[event, host, Link]`.
    pub(super) imports: BTreeSet<Vec<String>>,
    /// Modules that it declares for tests only.
    pub(super) test_modules: Vec<String>,
}

/// Reads the file of a module.
pub(super) fn read(module: &[String], text: &str) -> Source {
    let (tokens, test_modules) = without_tests(&tokens(text));
    let mut children: Vec<&str> = Vec::new();
    for pair in tokens.windows(3) {
        if let [keyword, name, end] = pair
            && keyword == "mod"
            && end == ";"
        {
            children.push(name);
        }
    }
    let mut imports = BTreeSet::new();
    for (at, token) in tokens.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|at| tokens.get(at)).map_or("", String::as_str);
        let starts = matches!(token.as_str(), "crate" | "super" | "self") || children.contains(&token.as_str());
        let goes_on = tokens.get(at + 1).is_some_and(|next| next == "::");
        if starts && goes_on && !matches!(before, "::" | "." | "in") {
            let mut paths = Vec::new();
            tree(&tokens, at, &[], &mut paths);
            imports.extend(paths.iter().map(|path| absolute(module, path)));
        }
    }
    Source { imports, test_modules }
}

/// Reads `a::{b, c::d}` from `at` on into whole paths; where it ends.
fn tree(tokens: &[String], mut at: usize, before: &[String], paths: &mut Vec<Vec<String>>) -> usize {
    let mut path = before.to_vec();
    loop {
        match tokens.get(at).map(String::as_str) {
            Some("{") => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    let end = tree(tokens, at, &path, paths);
                    at = end.max(at + 1);
                }
                return at + 1;
            }
            Some(name) if name.starts_with(|c: char| c.is_alphabetic() || c == '_') => {
                path.push(name.to_owned());
                at += 1;
            }
            Some("*") if path.len() > before.len() || !before.is_empty() => at += 1,
            _ => {}
        }
        if tokens.get(at).is_none_or(|token| token != "::") {
            if path.len() > before.len() || tokens.get(at.wrapping_sub(1)).is_some_and(|token| token == "*") {
                paths.push(path);
            }
            // What is renamed is the same; a comma leads to the next one.
            if tokens.get(at).is_some_and(|token| token == "as") {
                at += 2;
            }
            return if tokens.get(at).is_some_and(|token| token == ",") { at + 1 } else { at };
        }
        at += 1;
    }
}

/// A path as seen in a module, from the root of the crate on.
fn absolute(module: &[String], path: &[String]) -> Vec<String> {
    let mut from = module.to_vec();
    let mut rest = path;
    while let Some((first, others)) = rest.split_first() {
        match first.as_str() {
            "crate" => from.clear(),
            "super" => drop(from.pop()),
            "self" => {}
            _ => break,
        }
        rest = others;
    }
    from.extend(rest.iter().filter(|name| *name != "self").cloned());
    from
}

/// The tokens without what is `#[cfg(test)]`, and the names of modules among that.
fn without_tests(tokens: &[String]) -> (Vec<String>, Vec<String>) {
    const TEST: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut modules) = (Vec::new(), Vec::new());
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let is_test = tokens.get(at..at + TEST.len()).is_some_and(|here| here.iter().eq(TEST));
        if !is_test {
            kept.push(token.clone());
            at += 1;
            continue;
        }
        at += TEST.len();
        let mut depth = 0;
        while let Some(token) = tokens.get(at) {
            match token.as_str() {
                "mod" if depth == 0 => modules.extend(tokens.get(at + 1).cloned()),
                "{" | "(" | "[" => depth += 1,
                "}" | ")" | "]" => depth -= 1,
                _ => {}
            }
            at += 1;
            if depth == 0 && (token == ";" || token == "}") {
                break;
            }
        }
    }
    (kept, modules)
}

/// Words, `::` and single signs. Strings, characters, lifetimes and comments are left out.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = string(rest) {
            length
        } else if first == '\'' {
            quoted(rest)
        } else if first.is_alphanumeric() || first == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            tokens.extend(rest.get(..end).map(str::to_owned));
            end
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = rest.get(length..).unwrap_or_default();
    }
    tokens
}

/// The length of a string that begins here: `"…"`, `b"…"`, `r#"…"#`.
fn string(text: &str) -> Option<usize> {
    let prefix = text.find('"').filter(|at| *at <= 8)?;
    let head = text.get(..prefix)?;
    let body = text.get(prefix + 1..)?;
    let raw = head.trim_start_matches('b');
    if let Some(hashes) = raw.strip_prefix('r').filter(|hashes| hashes.chars().all(|c| c == '#')) {
        let end = format!("\"{hashes}");
        return Some(body.find(&end).map_or(text.len(), |at| prefix + 1 + at + end.len()));
    }
    if !matches!(head, "" | "b" | "c") {
        return None;
    }
    let mut escaped = false;
    let end = body.find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    Some(end.map_or(text.len(), |at| prefix + 1 + at + 1))
}

/// The length of a character (`'a'`, `'\n'`); of the sign alone where it is a lifetime's.
fn quoted(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => text.get(3..).and_then(|rest| rest.find('\'')).map_or(1, |at| at + 4),
        Some(_) => characters.next().filter(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1),
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    fn imports(module: &[&str], text: &str) -> Vec<String> {
        let module: Vec<String> = module.iter().map(|part| (*part).to_owned()).collect();
        read(&module, text).imports.into_iter().map(|path| path.join("::")).collect()
    }

    #[test]
    fn nested_lists_are_read_into_whole_paths() {
        let text = "use crate::event::{self, Event as Any, host::{Link, LinkKind}};\nuse super::{a, b::*};";
        assert_eq!(
            imports(&["diagnose", "facts"], text),
            ["diagnose::a", "diagnose::b", "event", "event::Event", "event::host::Link", "event::host::LinkKind"]
        );
    }

    #[test]
    fn paths_in_the_code_count_and_visibilities_do_not() {
        let text = "pub(in crate::diagnose) fn f(x: &crate::track::Flow) { self::g(super::super::sink::text(\"crate::app\")) }";
        assert_eq!(imports(&["diagnose", "fix"], text), ["diagnose::fix::g", "sink::text", "track::Flow"]);
    }

    #[test]
    fn a_module_of_its_own_counts_where_it_is_used() {
        assert!(imports(&["fix"], "mod device;\nfn f() { other::device(x.device) }").is_empty());
        assert_eq!(imports(&["fix"], "mod device;\nfn f() { device::up(1) }"), ["fix::device::up"]);
    }

    #[test]
    fn what_is_for_tests_does_not_count_and_what_follows_does() {
        let text = "#[cfg(test)]\nmod hostile;\n#[cfg(test)]\nmod tests { use crate::sink::Text; fn f<'a>() { '{'; } }\nuse crate::event::Event;";
        assert_eq!(imports(&["fix"], text), ["event::Event"]);
        assert_eq!(read(&[], text).test_modules, ["hostile", "tests"]);
    }
}
