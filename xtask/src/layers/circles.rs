//! Files that import each other in a circle: none of them can be understood, tested or moved without all the others.

use super::imports::{Source, read};
use std::collections::{BTreeMap, BTreeSet};

/// Circles that are still there, with the reason. The list may only get shorter.
const KNOWN: &[(&[&str], &str)] = &[
    (
        &["event", "event/bounds", "event/configuration", "event/host"],
        "`Network` and the bounds of lists belong in files of their own, below `host`",
    ),
    (&["host", "host/changes", "host/guests"], "`HostError` is defined where its makers are put together"),
    (&["filter", "filter/compile", "filter/names", "filter/parse", "filter/primitive", "filter/token"], PARENT),
    (&["record/output", "record/writer"], "each knows the type that the other makes"),
    (&["record", "record/judge", "record/progress", "record/recording"], PARENT),
    (&["tui/path", "tui/path/flow", "tui/path/guest"], PARENT),
    (&["tui/history", "tui/snapshot"], "each draws on a type of the other: the type belongs below both"),
    (&["tui/layout", "tui/state"], "each draws on a type of the other: the type belongs below both"),
    (&["tui/run", "tui/run/live", "tui/run/screen"], PARENT),
];

/// The usual one.
const PARENT: &str =
    "its files take types from the module's own file, which puts them together: these belong in a file of their own";

/// The files of a crate by their modules, tests left out, and which of them each imports.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

/// Who imports whom. The root of the crate puts the parts together and counts for nothing.
pub(super) fn graph(files: &[(Vec<String>, String)]) -> Graph {
    let sources: Vec<(&[String], Source)> =
        files.iter().map(|(module, text)| (module.as_slice(), read(module, text))).collect();
    let tests: BTreeSet<Vec<String>> = sources
        .iter()
        .flat_map(|(module, source)| {
            source.test_modules.iter().map(|name| module.iter().cloned().chain([name.clone()]).collect())
        })
        .collect();
    let is_test = |module: &[String]| (1..=module.len()).any(|end| tests.contains(module.get(..end).unwrap_or(module)));
    let modules: BTreeSet<&[String]> =
        sources.iter().map(|(module, _)| *module).filter(|module| !is_test(module)).collect();
    let file = |path: &[String]| {
        let mut own_and_above = (1..=path.len()).rev().filter_map(|end| path.get(..end));
        own_and_above.find(|module| modules.contains(module)).map(|module| module.join("/"))
    };
    sources
        .iter()
        .filter(|(module, _)| modules.contains(module))
        .map(|(module, source)| {
            let own = module.join("/");
            let imported = source.imports.iter().filter_map(|path| file(path)).filter(|other| *other != own).collect();
            (own, imported)
        })
        .collect()
}

/// Circles that nobody has agreed to, and known ones that are no more.
pub(super) fn faults(graph: &Graph) -> Vec<String> {
    compared(&circles(graph), KNOWN)
}

fn compared(circles: &[BTreeSet<String>], known: &[(&[&str], &str)]) -> Vec<String> {
    let is_known = |circle: &BTreeSet<String>, files: &[&str]| circle.iter().all(|file| files.contains(&file.as_str()));
    let new = circles.iter().filter(|circle| !known.iter().any(|(files, _)| is_known(circle, files)));
    let mut faults: Vec<String> = new
        .map(|circle| {
            let files: Vec<&str> = circle.iter().map(String::as_str).collect();
            format!("these import each other in a circle: {}", files.join(", "))
        })
        .collect();
    for (files, _) in known {
        let gone = files.iter().filter(|file| !circles.iter().any(|circle| circle.contains(**file)));
        faults.extend(gone.map(|file| format!("`{file}` is in no circle any more: take it off KNOWN in circles.rs")));
    }
    faults
}

/// Strongly connected components of more than one file (Tarjan).
fn circles(graph: &Graph) -> Vec<BTreeSet<String>> {
    let mut search = Search { graph, numbers: BTreeMap::new(), stack: Vec::new(), found: Vec::new() };
    for file in graph.keys() {
        if !search.numbers.contains_key(file.as_str()) {
            search.visit(file);
        }
    }
    search.found
}

struct Search<'g> {
    graph: &'g Graph,
    /// When each file was come to; none of those whose component is complete.
    numbers: BTreeMap<&'g str, Option<usize>>,
    stack: Vec<&'g str>,
    found: Vec<BTreeSet<String>>,
}

impl<'g> Search<'g> {
    /// The earliest file that can be come to from here.
    fn visit(&mut self, file: &'g str) -> usize {
        let own = self.numbers.len();
        let depth = self.stack.len();
        self.numbers.insert(file, Some(own));
        self.stack.push(file);
        let mut earliest = own;
        for next in self.graph.get(file).into_iter().flatten() {
            let reached = match self.numbers.get(next.as_str()) {
                None => self.visit(next),
                Some(Some(number)) => *number,
                Some(None) => continue,
            };
            earliest = earliest.min(reached);
        }
        if earliest == own {
            let component: BTreeSet<String> = self.stack.drain(depth..).map(str::to_owned).collect();
            for file in &component {
                if let Some(number) = self.numbers.get_mut(file.as_str()) {
                    *number = None;
                }
            }
            if component.len() > 1 {
                self.found.push(component);
            }
        }
        earliest
    }
}

#[cfg(test)]
mod tests {
    use super::{circles, compared, graph};

    fn found(files: &[(&str, &str)]) -> Vec<Vec<String>> {
        let files: Vec<(Vec<String>, String)> = files
            .iter()
            .map(|(module, text)| (module.split('/').map(str::to_owned).collect(), (*text).to_owned()))
            .collect();
        circles(&graph(&files)).into_iter().map(|circle| circle.into_iter().collect()).collect()
    }

    #[test]
    fn a_circle_of_three_is_found_and_what_hangs_on_it_is_not_in_it() {
        let files = [
            ("a", "use crate::b::f;"),
            ("b", "fn f() { crate::c::g() }"),
            ("c", "use super::a;"),
            ("d", "use crate::a;"),
            ("e", "use crate::a; use crate::d;"),
        ];
        assert_eq!(found(&files), [["a", "b", "c"]]);
    }

    #[test]
    fn a_declaration_is_no_import_and_a_child_that_takes_from_its_parent_is_one() {
        assert!(found(&[("a", "mod b;\npub fn f() {}"), ("a/b", "use super::f;")]).is_empty());
        assert_eq!(found(&[("a", "mod b;\npub fn f() { b::g() }"), ("a/b", "use super::f;")]), [["a", "a/b"]]);
        assert!(found(&[("a", "mod b;\nmod c;\nuse b::g;"), ("a/b", "use super::c::h;"), ("a/c", "")]).is_empty());
    }

    #[test]
    fn tests_may_look_back() {
        let files =
            [("a", "use self::b::g;\nmod b;\n#[cfg(test)]\nmod tests;"), ("a/tests", "use super::*;"), ("a/b", "")];
        assert!(found(&files).is_empty());
    }

    #[test]
    fn a_known_circle_may_shrink_but_not_grow() {
        let circle = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let known: &[(&[&str], &str)] = &[(&["a", "b", "c"], "a reason")];
        assert!(compared(&[circle(&["a", "b", "c"])], known).is_empty());
        assert_eq!(compared(&[circle(&["a", "b", "d"])], known).len(), 2);
        assert_eq!(
            compared(&[circle(&["a", "b"])], known),
            ["`c` is in no circle any more: take it off KNOWN in circles.rs"]
        );
    }
}
