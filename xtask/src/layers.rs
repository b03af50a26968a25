//! The architecture, checked: which module may know which, that no files know each other in a circle, where aya, ratatui and
//! unsafe code may appear, and how long a file may be. Reads the source text; comments and the tests of a module don't count.

mod circles;
mod imports;

use crate::shell;
use anyhow::{Context as _, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What each module of the crate `kvmtrace` may import from its siblings. `app`, `main` and `lib` put the parts together
/// and may import all of them; nothing may import those.
const LAYERS: &[(&str, &[&str])] = &[
    ("cli", &[]),
    ("craft", &["event", "forward"]),
    ("diagnose", &["event", "forward", "topology", "track"]),
    ("event", &[]),
    ("filter", &["event"]),
    ("forward", &["event", "topology"]),
    ("host", &["event", "kernel"]),
    ("kernel", &["event"]),
    ("pipeline", &["diagnose", "event", "filter", "selection", "track"]),
    ("plan", &["cli", "event", "filter"]),
    ("probe", &["event", "filter", "host", "kernel", "source"]),
    ("record", &["diagnose", "event", "pipeline", "selection", "source", "track"]),
    ("selection", &["diagnose", "event", "filter", "track"]),
    ("sink", &["diagnose", "event", "track"]),
    ("source", &["event"]),
    ("topology", &["event"]),
    ("track", &["event"]),
    ("tui", &["diagnose", "event", "pipeline", "selection", "source", "track"]),
];
/// What the parts of a module may import from each other; what is not named here has no place there. The module itself puts
/// them together: it may import all of them, and none of them it.
const PARTS: &[(&str, &[&str])] = &[
    ("diagnose/check", &["facts", "fix", "report", "shell", "words"]),
    ("diagnose/companions", &["facts", "faults", "flows", "judgement", "report"]),
    ("diagnose/evidence", &["facts", "flows", "words"]),
    ("diagnose/expect", &["flows", "report"]),
    ("diagnose/explain", &["check", "facts", "fix", "report", "shell"]),
    ("diagnose/facts", &["report", "shell", "words"]),
    ("diagnose/faults", &["facts", "fix", "flows", "judgement", "report", "shell", "words"]),
    ("diagnose/findings", &["facts", "faults", "fix", "flows", "report", "shell", "words"]),
    ("diagnose/fix", &["facts", "identity", "report", "shell", "words"]),
    ("diagnose/flows", &["facts", "report", "words"]),
    ("diagnose/guests", &["facts", "report"]),
    ("diagnose/identity", &[]),
    ("diagnose/incidents", &["facts", "fix", "flows", "identity", "offer", "predict", "report", "words"]),
    ("diagnose/judgement", &["report"]),
    ("diagnose/ledger", &["facts", "flows", "report"]),
    ("diagnose/offer", &["fix", "report"]),
    ("diagnose/predict", &["expect", "facts", "flows", "judgement", "report"]),
    ("diagnose/probe", &["flows", "report"]),
    ("diagnose/reachability", &["explain", "facts", "report", "shell"]),
    ("diagnose/reconcile", &["expect", "facts", "fix", "flows", "judgement", "report", "rules"]),
    ("diagnose/report", &[]),
    ("diagnose/rules", &["facts", "faults", "fix", "flows", "judgement", "report", "shell", "words"]),
    ("diagnose/shell", &[]),
    ("diagnose/watch", &["facts", "flows", "identity", "report", "rules", "words"]),
    ("diagnose/words", &[]),
];

/// Modules whose files don't import each other: one idea per file.
const APART: &[&str] = &["diagnose/rules"];

const COMPOSITION: &[&str] = &["app", "lib", "main"];

/// Crates that only some modules may import.
const CRATES: &[(&str, &[&str])] =
    &[("aya", &["probe"]), ("aya_obj", &["probe"]), ("ratatui", &["tui"]), ("crossterm", &["tui"])];

/// Modules that forbid unsafe code at their top.
const SAFE: &[&str] =
    &["craft", "event", "track", "topology", "forward", "diagnose", "record", "selection", "sink", "tui"];

/// A file longer than this says why, in its head.
const LONGEST: usize = 500;
const LENGTH_REASON: &str = "long because";

/// Checks the whole source; fails when a rule is broken, naming each place.
pub(crate) fn check() -> Result<()> {
    let root = shell::root();
    let mut faults = Vec::new();
    let mut modules = Vec::new();
    for member in ["kvmtrace", "kvmtrace-common", "kvmtrace-ebpf", "tests", "fidelity", "xtask"] {
        for file in sources(&root.join(member))? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("can't read {}", file.display()))?;
            let name = file.strip_prefix(&root).unwrap_or(&file).display().to_string();
            let lines = text.lines().count();
            if lines > LONGEST && !head(&text).contains(LENGTH_REASON) {
                faults.push(format!("{name}: {lines} lines; split it, or say `{LENGTH_REASON} …` in its head"));
            }
            if let Ok(path) = file.strip_prefix(root.join("kvmtrace/src")) {
                let module = module_path(path);
                faults.extend(module_faults(&module, &text).into_iter().map(|fault| format!("{name}: {fault}")));
                modules.push((module, text));
            }
        }
    }
    let graph = circles::graph(&modules);
    faults.extend(part_faults(&graph));
    faults.extend(circles::faults(&graph));
    if !faults.is_empty() {
        bail!("layers:\n  {}", faults.join("\n  "));
    }
    Ok(())
}

/// What is wrong with one file of the crate `kvmtrace`.
fn module_faults(path: &[String], text: &str) -> Vec<String> {
    let Some(module) = path.first().map(String::as_str) else { return Vec::new() };
    let code = code(text);
    let mut faults = Vec::new();
    if !COMPOSITION.contains(&module) {
        match LAYERS.iter().find(|(name, _)| *name == module) {
            None => faults.push(format!("the module `{module}` has no place in the layers: xtask/src/layers.rs")),
            Some((_, allowed)) => {
                let known = |name: &str| LAYERS.iter().any(|(other, _)| *other == name) || COMPOSITION.contains(&name);
                let imported = imports::read(path, text).imports;
                let imported: BTreeSet<&String> = imported.iter().filter_map(|path| path.first()).collect();
                let wrong = imported
                    .into_iter()
                    .filter(|name| known(name) && name.as_str() != module && !allowed.contains(&name.as_str()));
                faults.extend(wrong.map(|name| format!("`{module}` must not know `{name}`")));
            }
        }
    }
    for (name, allowed) in CRATES {
        if !allowed.contains(&module) && mentions(&code, &format!("{name}::")) {
            faults.push(format!("`{name}` is for {} only", allowed.join(", ")));
        }
    }
    if path.len() == 1 && SAFE.contains(&module) && !text.contains("#![forbid(unsafe_code)]") {
        faults.push("lacks #![forbid(unsafe_code)]".to_owned());
    }
    faults
}

/// What parts of a module import that they must not, and rules that import rules.
fn part_faults(graph: &circles::Graph) -> Vec<String> {
    let mut faults = Vec::new();
    for (file, imported) in graph {
        let Some((whole, part)) = part_of(file) else { continue };
        let row = PARTS.iter().find(|(name, _)| *name == format!("{whole}/{part}"));
        if PARTS.iter().any(|(name, _)| name.split('/').next() == Some(whole)) && row.is_none() {
            faults.push(format!("`{whole}/{part}` has no place in the layers: PARTS in xtask/src/layers.rs"));
        }
        for other in imported {
            if row.is_some() && other == whole {
                faults.push(format!("`{file}` must not know `{whole}` itself, which puts it together with others"));
            }
            let Some((_, other_part)) = part_of(other).filter(|(other_whole, _)| *other_whole == whole) else {
                continue;
            };
            if row.is_some_and(|(_, allowed)| other_part != part && !allowed.contains(&other_part)) {
                faults.push(format!("`{file}` must not know `{other}`"));
            }
            let below = |file: &str, module: &str| file.strip_prefix(module).is_some_and(|rest| rest.starts_with('/'));
            if APART.iter().any(|module| below(file, module) && below(other, module)) {
                faults.push(format!("`{file}` must not know `{other}`: what both need belongs below them"));
            }
        }
    }
    faults
}

/// `diagnose/rules/xdp` → `diagnose`, `rules`.
fn part_of(file: &str) -> Option<(&str, &str)> {
    let mut parts = file.split('/');
    Some((parts.next()?, parts.next()?))
}

fn mentions(code: &str, word: &str) -> bool {
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(|last: char| last.is_alphanumeric() || last == '_' || last == ':'))
}

/// The text without comments and without the tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or(line));
    lines.collect::<Vec<_>>().join("\n")
}

/// The module documentation.
fn head(text: &str) -> String {
    text.lines().take_while(|line| line.starts_with("//!")).collect::<Vec<_>>().join("\n")
}

/// `track/flow.rs` → `[track, flow]`, `track/mod.rs` → `[track]`.
fn module_path(file: &Path) -> Vec<String> {
    let parts = file.with_extension("");
    let mut parts: Vec<_> = parts.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// Every Rust file below a directory but its build products, in order.
fn sources(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(directory).with_context(|| format!("can't read {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::{module_faults, part_faults};

    fn faults(path: &[&str], text: &str) -> Vec<String> {
        module_faults(&path.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>(), text)
    }

    #[test]
    fn what_points_down_is_allowed() {
        assert!(faults(&["diagnose", "rules"], "use crate::{event::{Event, Place}, track::Track};").is_empty());
        assert!(faults(&["app"], "use crate::probe::Probe;").is_empty());
    }

    #[test]
    fn what_points_up_is_a_fault() {
        assert_eq!(faults(&["track", "flow"], "use crate::diagnose::Verdict;"), ["`track` must not know `diagnose`"]);
        assert_eq!(faults(&["track", "flow"], "use super::super::sink;"), ["`track` must not know `sink`"]);
        assert_eq!(
            faults(&["sink"], "#![forbid(unsafe_code)]\nlet x = crate::host::links();"),
            ["`sink` must not know `host`"]
        );
        assert_eq!(faults(&["event", "decode"], "use crate::{app, event};"), ["`event` must not know `app`"]);
    }

    #[test]
    fn comments_and_tests_do_not_count() {
        assert!(
            faults(&["track", "flow"], "// crate::diagnose\n#[cfg(test)]\nmod tests {\nuse crate::sink::Text;\n}")
                .is_empty()
        );
    }

    #[test]
    fn aya_belongs_to_probe() {
        assert!(faults(&["probe", "loader"], "use aya::Ebpf;").is_empty());
        assert_eq!(faults(&["host", "links"], "use aya::Ebpf;"), ["`aya` is for probe only"]);
    }

    #[test]
    fn a_pure_module_forbids_unsafe_code() {
        assert_eq!(faults(&["sink"], "//! Text."), ["lacks #![forbid(unsafe_code)]"]);
    }

    fn of_parts(files: &[(&str, &[&str])]) -> Vec<String> {
        let files = files
            .iter()
            .map(|(file, imported)| ((*file).to_owned(), imported.iter().map(|other| (*other).to_owned()).collect()));
        part_faults(&files.collect())
    }

    #[test]
    fn a_part_knows_those_below_it() {
        let fine: &[(&str, &[&str])] = &[
            ("diagnose", &["diagnose/rules/xdp", "diagnose/report"]),
            ("diagnose/facts/xdp", &["diagnose/report", "diagnose/facts/scene", "event/host"]),
            ("diagnose/rules", &["diagnose/rules/xdp"]),
            ("sink/text", &["sink/style", "diagnose/report"]),
        ];
        assert!(of_parts(fine).is_empty());
        assert_eq!(
            of_parts(&[("diagnose/facts/xdp", &["diagnose/fix/device"])]),
            ["`diagnose/facts/xdp` must not know `diagnose/fix/device`"]
        );
        assert_eq!(of_parts(&[("diagnose/fix/device", &["diagnose"])]).len(), 1);
        assert_eq!(
            of_parts(&[("diagnose/attic", &[])]),
            ["`diagnose/attic` has no place in the layers: PARTS in xtask/src/layers.rs"]
        );
    }

    #[test]
    fn a_rule_knows_no_other_rule() {
        assert_eq!(
            of_parts(&[("diagnose/rules/xdp", &["diagnose/rules/path"])]),
            ["`diagnose/rules/xdp` must not know `diagnose/rules/path`: what both need belongs below them"]
        );
    }
}
