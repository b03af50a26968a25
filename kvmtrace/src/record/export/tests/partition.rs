//! Directories by host and day.

use super::*;
use crate::event::Timestamp;
use crate::record::samples::conversation;
use std::collections::{BTreeMap, BTreeSet};

/// Nanoseconds of a day.
const DAY: u64 = 86_400_000_000_000;

/// Files below a directory, by their paths in it.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                found.insert(path.strip_prefix(directory).unwrap().display().to_string());
            }
        }
    }
    found
}

/// A host's trace of so many days, an hour less than a day apart, and the events of each day.
fn days(host: &str, days: u64) -> (Vec<Event>, BTreeMap<String, usize>) {
    let mut events = Vec::new();
    for day in 0..days {
        let mut some = conversation(host, true, 0, [0, 1, 2, 3]);
        for event in &mut some {
            event.time = Timestamp(event.time.0 + day * (DAY - DAY / 24));
        }
        events.extend(some.into_iter().skip(if day == 0 { 0 } else { 2 }));
    }
    let mut count = BTreeMap::new();
    for event in &events {
        *count.entry(event.time.to_string()[..10].to_owned()).or_default() += 1;
    }
    (events, count)
}

fn partitioned(form: Form, output: &Path, partition: &str) -> Target {
    Target { partition: Some(partition.parse().unwrap()), ..target(form, output) }
}

#[test]
fn each_day_of_each_host_has_its_directory_and_nothing_is_written_twice() {
    let ((first, of_first), (second, of_second)) = (days("kvm1", 12), days("../kvm=2", 3));
    let (one, two) = (Sample::of("days-one", &first), Sample::of("days-two", &second));
    let output = one.0.join("lake");
    let sources = [one.recording(), two.recording()];
    export(&sources, Selection::default(), &partitioned(Form::Json, &output, "host,date"), true).unwrap();
    let mut expected = BTreeMap::new();
    for (host, days) in [("kvm1", of_first), ("..%2Fkvm%3D2", of_second)] {
        expected.extend(days.into_iter().map(|(day, events)| (format!("host={host}/date={day}/events.json"), events)));
    }
    assert_eq!(files(&output), expected.keys().cloned().collect());
    let mut verdicts = 0;
    for (file, events) in &expected {
        let text = std::fs::read_to_string(output.join(file)).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.iter().filter(|line| line["time"].is_string()).count(), *events, "{file}");
        assert_eq!(lines.iter().filter(|line| line["event"] == "recording").count(), 1, "{file}");
        verdicts += lines.iter().filter(|line| line["event"] == "verdict").count();
    }
    assert_eq!(verdicts, 2, "each flow once, where it began");
}

#[test]
fn a_directory_that_is_written_again_after_many_others_gets_another_file() {
    let (mut events, count) = days("kvm1", 12);
    let first = events[2].clone();
    events.push(first);
    let sample = Sample::of("days-again", &events);
    let output = sample.0.join("captures");
    let target = partitioned(Form::Json, &output, "date");
    export(&[sample.recording()], Selection::default(), &target, true).unwrap();
    let found = files(&output);
    assert_eq!(found.len(), count.len() + 1, "{found:?}");
    assert!(found.iter().any(|file| file.ends_with("events-1.json")), "{found:?}");
}

#[test]
fn only_hosts_and_dates_are_columns() {
    for text in ["host", "date", "host,date", "date, host"] {
        assert!(text.parse::<Partition>().is_ok(), "{text}");
    }
    for text in ["", "guest", "host,host", "host,date,guest"] {
        assert!(text.parse::<Partition>().is_err(), "{text}");
    }
}

#[cfg(feature = "parquet")]
#[test]
fn duckdb_reads_all_directories_as_one_table() {
    let (events, count) = days("kvm1", 3);
    let sample = Sample::of("days-duckdb", &events);
    let output = sample.0.join("lake");
    export(&[sample.recording()], Selection::default(), &partitioned(Form::Parquet, &output, "host,date"), true)
        .unwrap();
    let script = r#"
import sys
try:
    import duckdb
except ImportError:
    print("SKIP")
    sys.exit()
table = f"read_parquet('{sys.argv[1]}/**/events.parquet', hive_partitioning = true)"
for row in duckdb.sql(f"select host, date::varchar, count(*) from {table} group by all order by 2").fetchall():
    print(*row)
print(duckdb.sql(f"select sum(packets) from {table} where event = 'flow'").fetchall()[0][0])
"#;
    let python = std::env::var("KVMTRACE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let Some(text) = super::output(&python, &["-c", script, output.to_str().unwrap()]) else { return };
    if text.trim() == "SKIP" {
        println!("SKIP: {python} has no duckdb; pip install duckdb");
        return;
    }
    let mut expected: Vec<String> = count.iter().map(|(day, events)| format!("kvm1 {day} {events}")).collect();
    // Four sightings of a packet each.
    expected.push("4".to_owned());
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}
