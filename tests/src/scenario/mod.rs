//! Scenarios: what is built, what is broken, which traffic suffers, what kvmtrace must say, and how it is mended. Each is
//! a file under `tests/scenarios`; one runner proves them all.

mod judge;
mod probed;
mod runner;
mod turn;

pub use judge::Judgement;
pub use runner::{By, Outcome, Run, Runner, prepare};

use crate::lab::plan::Options;
use crate::lab::traffic::Traffic;
use anyhow::{Context as _, Result};
use serde::Deserialize;
use std::fs;
use std::path::{Path, PathBuf};

/// A scenario file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Scenario {
    /// `area/name`, from the file's path.
    #[serde(skip)]
    pub name: String,
    /// What goes wrong, for people.
    pub about: String,
    /// What the kernel or the machine must have.
    #[serde(default)]
    pub requires: Vec<Requirement>,
    /// What is built.
    #[serde(default)]
    pub lab: Options,
    /// Commands after building, `PLACE: COMMAND`; all still works.
    #[serde(default)]
    pub setup: Vec<String>,
    /// The fault, `PLACE: COMMAND`.
    #[serde(default, rename = "break")]
    pub fault: Vec<String>,
    /// What is sent.
    pub traffic: Vec<Traffic>,
    /// What is sent besides, untraced: it tells broken from mended where the traced traffic works in both.
    #[serde(default)]
    pub proof: Vec<Traffic>,
    /// What kvmtrace must say, all of it; nothing for a healthy scenario. The cures of all are tried.
    #[serde(default)]
    pub expect: OneOrMore<Expect>,
    /// On a healthy host, what must be told with both ends translated: `PROTOCOL DIRECTION` of delivered flows.
    #[serde(default)]
    pub both_ends: Vec<String>,
    /// Where the cure lies.
    #[serde(default)]
    pub cure: Cure,
    /// What the text of a cure that lies elsewhere must name, besides there being one.
    #[serde(default)]
    pub advice: Vec<String>,
    /// Commands that make the kernels forget, before the traffic is tried after a cure and after its undo.
    #[serde(default)]
    pub forget: Vec<String>,
    /// Commands, `PLACE: COMMAND`, that succeed once the cure has run: what it must leave as it was.
    #[serde(default)]
    pub left_alone: Vec<String>,
    /// What a person would type to mend it: proves the scenario itself.
    #[serde(default)]
    pub cure_by_hand: Vec<String>,
    /// Why kvmtrace is known to judge it wrong: until that is mended, a wrong verdict is a skip that says so.
    pub open: Option<String>,
    /// kvmtrace is asked which rule it was (`--trace-rules`).
    #[serde(default)]
    pub trace_rules: bool,
    /// Milliseconds until the fault has taken hold.
    #[serde(default)]
    pub wait: u64,
    /// What it fills or changes for every namespace of the machine: of those that name the same, one runs at a time.
    pub machine_wide: Option<MachineWide>,
}

/// What the namespaces of a machine share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineWide {
    /// The connections: one hash (`nf_conntrack_hash`) and one limit (`nf_conntrack_max`) for all namespaces.
    Conntrack,
}

/// Something that not every machine has.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// What it is, for the reason of a skip.
    pub what: String,
    /// A command that succeeds in a fresh namespace where it is there.
    pub command: String,
}

/// Where the cure lies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cure {
    /// A command on the host mends it, its undo breaks it again.
    #[default]
    Host,
    /// A command on the host mends it, which nothing takes back: it must come without an undo, and with its risk.
    HostOnce,
    /// A command on the host mends it, its undo breaks it again; what it touches is more than these packets, so advice comes
    /// before it.
    HostAdvised,
    /// In a guest or beyond the host: kvmtrace must propose no command, and say what to do there.
    Elsewhere,
    /// Nothing is broken: information, and no command.
    Nothing,
}

/// What kvmtrace must say.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The cause id; several where the evidence allows each.
    pub cause: OneOrMore<String>,
    /// Cause ids that may be told besides.
    #[serde(default)]
    pub also: Vec<String>,
    /// The device of `where`.
    pub device: Option<OneOrMore<String>>,
    /// The point of `where`.
    pub point: Option<OneOrMore<String>>,
    /// The flow's direction.
    pub direction: Option<OneOrMore<String>>,
    /// The gravity; else warning or error.
    pub severity: Option<OneOrMore<String>>,
    /// The flow's verdict.
    pub verdict: Option<OneOrMore<String>>,
    /// The guest's name.
    pub guest: Option<String>,
    /// The flow's protocol.
    pub protocol: Option<OneOrMore<String>>,
    /// The address that NAT gave the flow, as its source or destination.
    pub translated: Option<String>,
    /// Words that a line of the evidence holds.
    pub evidence: Option<String>,
}

/// One, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum OneOrMore<T> {
    /// One.
    One(T),
    /// Several.
    More(Vec<T>),
}

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl<T> OneOrMore<T> {
    /// As a list.
    pub fn list(&self) -> &[T] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

impl Scenario {
    /// Reads one file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut scenario: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let area = part(path.parent().and_then(Path::file_name));
        scenario.name = format!("{area}/{}", part(path.file_stem()));
        Ok(scenario)
    }

    /// Every scenario, by name.
    pub fn all() -> Result<Vec<Self>> {
        let mut paths = Vec::new();
        collect(&directory(), &mut paths)?;
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// One by its name.
    pub fn find(name: &str) -> Result<Self> {
        Self::all()?.into_iter().find(|scenario| scenario.name == name).with_context(|| format!("no scenario {name}"))
    }

    /// Whether a probe can stand for its traffic: one exchange of a guest with one other.
    pub fn can_be_probed(&self) -> bool {
        probed::subject(self).is_some()
    }

    /// Whether nothing is broken in it.
    pub fn is_healthy(&self) -> bool {
        self.expect.list().is_empty()
    }
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios")
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, paths)?;
        } else if path.extension().is_some_and(|extension| extension == "toml") {
            paths.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::draw::Seed;
    use crate::lab::plan::Plan;
    use crate::lab::traffic::{Expected, fill};

    #[test]
    fn every_scenario_file_reads_and_names_only_known_placeholders() {
        let scenarios = Scenario::all().unwrap();
        assert!(!scenarios.is_empty());
        for scenario in scenarios {
            let mut known = Plan::drawn("kt", &scenario.lab, &mut Seed(1).draw(&scenario.name)).placeholders();
            for name in ["lab", "managers", "packages", "ns.host", "ns.lan", "ns.guest1", "ns.guest2"] {
                known.insert(name.into(), name.into());
            }
            let steps =
                [&scenario.setup, &scenario.fault, &scenario.cure_by_hand, &scenario.forget, &scenario.left_alone];
            for line in steps.into_iter().flatten() {
                fill(line, &known).unwrap_or_else(|error| panic!("{}: {line}: {error}", scenario.name));
                assert!(line.contains(": "), "{}: `{line}` says no place", scenario.name);
            }
            for word in &scenario.advice {
                fill(word, &known).unwrap_or_else(|error| panic!("{}: {word}: {error}", scenario.name));
            }
            assert!(scenario.is_healthy() || !scenario.fault.is_empty(), "{} breaks nothing", scenario.name);
            let advised = matches!(scenario.cure, Cure::Elsewhere | Cure::HostAdvised);
            assert_eq!(advised, !scenario.advice.is_empty(), "{}: advice is for a cure elsewhere", scenario.name);
            let broken = scenario.traffic.iter().chain(&scenario.proof).any(|traffic| traffic.after == Expected::Fails);
            assert!(
                broken || scenario.is_healthy() || scenario.cure == Cure::Nothing,
                "{}: nothing in it fails, so no cure is proven",
                scenario.name
            );
        }
    }

    #[test]
    fn every_expected_cause_is_one_of_the_schema() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/verdict.schema.json")).unwrap();
        let causes = schema["$defs"]["cause"]["enum"].as_array().unwrap();
        for scenario in Scenario::all().unwrap() {
            let expected =
                scenario.expect.list().iter().flat_map(|expect| expect.cause.list().iter().chain(&expect.also));
            for cause in expected {
                assert!(causes.iter().any(|known| known == cause), "{}: {cause}", scenario.name);
            }
        }
    }

    /// Causes that so far only tests of `diagnose` and `forward` show. The list may only get shorter.
    const UNPROVEN: &[&str] = &["dhcp-unanswered", "ipv6-disabled", "macvtap-multicast-filtered", "rogue-dhcp-server"];

    #[test]
    fn every_cause_has_two_scenarios_that_differ_in_direction_family_or_topology() {
        let schema: serde_json::Value =
            serde_json::from_str(include_str!("../../../docs/verdict.schema.json")).unwrap();
        let scenarios = Scenario::all().unwrap();
        let kinds = |cause: &str| {
            let told = |scenario: &&Scenario| {
                scenario.expect.list().iter().any(|expect| expect.cause.list().iter().any(|told| told == cause))
            };
            let kind = |scenario: &Scenario| {
                let ends = scenario.traffic.first().map(|traffic| (traffic.from.clone(), traffic.to.clone()));
                format!("{ends:?} {:?} {:?}", scenario.lab.family, scenario.lab.topology)
            };
            scenarios.iter().filter(told).map(kind).collect::<std::collections::BTreeSet<_>>().len()
        };
        let causes = schema["$defs"]["cause"]["enum"].as_array().unwrap();
        for cause in causes.iter().filter_map(serde_json::Value::as_str) {
            let proven = kinds(cause) >= 2;
            assert!(proven || UNPROVEN.contains(&cause), "{cause} is proven in {} ways", kinds(cause));
            assert!(!proven || !UNPROVEN.contains(&cause), "{cause} is proven now: take it off the list");
        }
    }
}
