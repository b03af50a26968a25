//! The kernel functions that verdicts are made of: each that this kernel should have is among its symbols. A name that is
//! gone is a cause that is never found again, and no other test would fail.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that can't go on has failed; a skip is told")]

use kvmtrace::diagnose::facts::sites::{FUNCTIONS, Part, Release};
use std::collections::BTreeSet;

/// Names of `/proc/kallsyms` without what the compiler appended: `br_forward.isra.0`.
fn symbols() -> BTreeSet<String> {
    let text = std::fs::read_to_string("/proc/kallsyms").unwrap();
    let names = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    names.map(|name| name.split('.').next().unwrap_or(name).to_owned()).collect()
}

fn release() -> Release {
    let text = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn each_function_is_among_the_symbols_of_this_kernel() {
    let (symbols, release) = (symbols(), release());
    let is_there = |part: Part| part.witness().is_none_or(|witness| symbols.contains(witness));
    let mut skipped = BTreeSet::new();
    let mut missing = Vec::new();
    let (mut found, mut unseen) = (0, 0);
    for function in FUNCTIONS {
        if !function.is_in(release) {
            unseen += 1;
        } else if symbols.contains(function.name) {
            found += 1;
        } else if is_there(function.part) {
            missing.push(function.name);
        } else {
            skipped.insert(format!("{} ({:?} is not loaded or not built)", function.name, function.part));
        }
    }
    for name in &skipped {
        println!("SKIP: {name}");
    }
    println!("{found} found, {unseen} not to be expected in {}.{}", release.0, release.1);
    assert!(missing.is_empty(), "Linux {}.{} has no {}", release.0, release.1, missing.join(", "));
    assert!(found > FUNCTIONS.len() / 2, "only {found} found: can /proc/kallsyms be read?");
}
