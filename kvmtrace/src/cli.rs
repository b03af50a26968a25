//! The command line as it was typed. It is long because each option of each command has its help text here.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// Where did my guest's packet go?
///
/// For each flow of each guest of this KVM host, kvmtrace reports whether its packets were delivered, dropped, fragmented,
/// refused or never answered; at which device and in which kernel function; why; and which command fixes it.
#[derive(Debug, Parser)]
#[command(name = "kvmtrace", version, max_term_width = 110, after_help = EXIT_STATUS)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Options of all commands.
    #[command(flatten)]
    pub common: Common,
}

const EXIT_STATUS: &str =
    "Exit status: 0 no fault found, 1 faults found (verdict, report, check, probe), 2 could not run.";

/// Options of all commands.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Print only results and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Print more details (twice: much more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Colour the output
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
    /// Look at this network namespace: its name, its path, or all that have guests (verdict takes several)
    #[arg(long, global = true, value_name = "NAME|PATH|all")]
    pub netns: Vec<String>,
}

/// When to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show each guest and its path: tap, bridge, uplink, MAC and addresses seen
    Guests {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Find faults in the host's configuration, and what gets through: nothing is traced or sent
    Check(Check),
    /// Send a few packets as if a guest had, trace them there and back, and give the verdict
    Probe(Probe),
    /// Apply a fix under watch: keep it if the traffic then passes, else undo it
    Fix(Fix),
    /// Explain what this host would do with a packet of a guest: stage by stage, with the rule, route or entry that decides.
    /// Nothing is sent or traced
    Explain(Explain),
    /// Show drops, fragments and layer-2 events as they happen, a line each; in the end, what each flow lost
    Watch(Watch),
    /// Trace for a while, then print a verdict per flow
    Verdict(Verdict),
    /// Show guests, flows and faults on a full screen while tracing
    Live(Live),
    /// Show a recording on a full screen: play, stop, seek, jump to the next fault
    Replay(Replay),
    /// Record a trace in a file, to judge it later and elsewhere
    Record(Record),
    /// Print the verdicts of a recording
    Report(Report),
    /// Turn recordings into pcapng, JSON lines or parquet
    Export(Export),
    /// Trace until Ctrl-C and serve counters to Prometheus
    Metrics(Metrics),
    /// Remove hooks that a killed run has left behind (only kernels before 6.6 let it)
    Clean,
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print a manual page, or write all of them
    Man {
        /// Of this command (default: of kvmtrace itself)
        #[arg(value_name = "COMMAND")]
        of: Option<String>,
        /// Write the pages of all commands into this directory instead
        #[arg(short, long, value_name = "DIRECTORY", conflicts_with = "of")]
        output: Option<PathBuf>,
    },
}

/// What to trace.
#[derive(Args, Clone, Debug, Default)]
pub struct Scope {
    /// Only this guest and its path (may be given several times)
    #[arg(short, long = "guest", value_name = "NAME")]
    pub guests: Vec<String>,
    /// Only this device (may be given several times)
    #[arg(short, long = "interface", value_name = "DEV")]
    pub interfaces: Vec<String>,
    /// Include traffic that involves no guest
    #[arg(long)]
    pub all: bool,
    /// Create this file once everything is attached; remove it at the end
    #[arg(long, value_name = "PATH")]
    pub ready_file: Option<PathBuf>,
    /// A pcap-filter expression, as for tcpdump: host 10.0.0.5 and tcp port 443
    #[arg(trailing_var_arg = true, value_name = "FILTER")]
    pub filter: Vec<String>,
}

/// Tracing of rules.
#[derive(Args, Clone, Copy, Debug, Default)]
pub struct RuleTrace {
    /// Also find which firewall rule drops a packet, by nft's trace: kvmtrace adds tables of its own that mark a few
    /// packets of each flow and are gone when it ends; no rule is changed
    #[arg(long)]
    pub trace_rules: bool,
}

/// `kvmtrace verdict`
#[derive(Args, Clone, Debug)]
pub struct Verdict {
    /// What to trace.
    #[command(flatten)]
    pub scope: Scope,
    /// Tracing of rules.
    #[command(flatten)]
    pub rules: RuleTrace,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Stop after this time: 5, 5s, 2m (default: at Ctrl-C)
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Trace while this command runs
    #[arg(long, value_name = "COMMAND")]
    pub cmd: Option<String>,
    /// Also record the trace in this file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Overwrite FILE if it exists
    #[arg(long, requires = "output")]
    pub force: bool,
    /// Which packets.
    #[command(flatten)]
    pub packets: Packets,
}

/// Which packets a recording has, and how much of each.
#[derive(Args, Clone, Copy, Debug)]
pub struct Packets {
    /// Record every packet, not only drops, fragments and first packets
    #[arg(long = "packets", requires = "output")]
    pub every: bool,
    /// Bytes of each packet that --packets keeps, 160 at most: all headers, little of what they carry
    #[arg(long, value_name = "N", default_value_t = 96, requires = "every")]
    #[arg(value_parser = clap::value_parser!(u16).range(0..=160))]
    pub snaplen: u16,
}

/// `kvmtrace live`
#[derive(Args, Clone, Debug)]
pub struct Live {
    /// What to trace.
    #[command(flatten)]
    pub scope: Scope,
    /// Tracing of rules.
    #[command(flatten)]
    pub rules: RuleTrace,
}

/// `kvmtrace replay`
#[derive(Args, Clone, Debug)]
pub struct Replay {
    /// The recording (all of its files if it was rotated; several hosts' play on one clock), then a filter as for tcpdump
    #[arg(required = true, value_name = "FILE|FILTER")]
    pub words: Vec<String>,
    /// Which part of it.
    #[command(flatten)]
    pub part: Part,
}

/// Which part of a recording: verdicts are those of the whole trace.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Part of the recording")]
pub struct Part {
    /// Only this guest: name, UUID or device (may be given several times)
    #[arg(short, long = "guest", value_name = "NAME")]
    pub guests: Vec<String>,
    /// Only what passed this device (may be given several times)
    #[arg(short, long = "interface", value_name = "DEV")]
    pub interfaces: Vec<String>,
    /// Only this cause, by its id
    #[arg(long, value_name = "ID")]
    pub cause: Option<String>,
    /// Only flows with this verdict
    #[arg(long, value_name = "VERDICT")]
    pub verdict: Option<String>,
    /// Only warnings and errors
    #[arg(long)]
    pub faults_only: bool,
    /// Judge from this moment on: 2026-11-23T15:28:12Z, 15:28 (UTC), or 90s from the start
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Judge up to this moment
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// `kvmtrace record`
#[derive(Args, Clone, Debug)]
pub struct Record {
    /// What to trace.
    #[command(flatten)]
    pub scope: Scope,
    /// Tracing of rules.
    #[command(flatten)]
    pub rules: RuleTrace,
    /// The output: a file, or - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Overwrite FILE if it exists
    #[arg(long)]
    pub force: bool,
    /// Stop after this time: 5, 5s, 2m (default: at Ctrl-C)
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Trace while this command runs
    #[arg(long, value_name = "COMMAND")]
    pub cmd: Option<String>,
    /// Which packets.
    #[command(flatten)]
    pub packets: Packets,
    /// Start a new file at SIZE (64MB), keep the newest COUNT files
    #[arg(long, value_name = "SIZE[,COUNT]")]
    pub rotate: Option<String>,
}

/// `kvmtrace report`
#[derive(Args, Clone, Debug)]
pub struct Report {
    /// Recordings (- for standard input; several are judged together, joined across hosts), then a filter as for tcpdump
    #[arg(required = true, value_name = "FILE|FILTER")]
    pub words: Vec<String>,
    /// Which part of them.
    #[command(flatten)]
    pub part: Part,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `kvmtrace export`
#[derive(Args, Clone, Debug)]
pub struct Export {
    /// Recordings (several are judged together and written in the order of time), then a filter as for tcpdump
    #[arg(required = true, value_name = "FILE|FILTER")]
    pub words: Vec<String>,
    /// Which part of it.
    #[command(flatten)]
    pub part: Part,
    /// The output format
    #[arg(long, value_enum, value_name = "FORM")]
    pub to: Form,
    /// The output: a file, or - for standard output; for parquet and with --partition a directory
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,
    /// Overwrite OUT if it exists
    #[arg(long)]
    pub force: bool,
    /// Make a directory per host, date (UTC) or both, named host=…/date=… as Hive does: host,date
    #[arg(long, value_name = "COLUMNS")]
    pub partition: Option<String>,
}

/// Forms to export to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Form {
    /// Packets for Wireshark and tshark: an interface per observation point, verdicts as comments
    Pcapng,
    /// A line per event and per verdict
    Json,
    /// A directory with the tables events.parquet and flows.parquet
    Parquet,
}

/// `kvmtrace metrics`
#[derive(Args, Clone, Debug)]
pub struct Metrics {
    /// What to trace.
    #[command(flatten)]
    pub scope: Scope,
    /// The address to listen on; a port alone means this host only
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:9985", value_parser = listen)]
    pub listen: SocketAddr,
}

/// `kvmtrace check`
#[derive(Args, Clone, Debug)]
pub struct Check {
    /// Also send a few packets as if each guest had sent them, and see what becomes of them
    #[arg(long)]
    pub probe: bool,
    /// Only this guest and its path (may be given several times)
    #[arg(short, long = "guest", value_name = "NAME")]
    pub guests: Vec<String>,
    /// Only this device (may be given several times)
    #[arg(short, long = "interface", value_name = "DEV")]
    pub interfaces: Vec<String>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// A packet, in words: `explain` and `probe` ask about one.
#[derive(Args, Clone, Debug, Default)]
pub struct PacketWords {
    /// The guest: its name, its UUID or one of its devices
    pub guest: String,
    /// to TARGET: an address, a name that resolves on this host, a guest, `gateway` or `host`; then icmp (the default), tcp PORT,
    /// udp PORT, arp, dhcp or nd
    #[arg(value_name = "to TARGET [PROTOCOL [PORT]]")]
    pub words: Vec<String>,
    /// Length of the packet from the IP header on, in bytes
    #[arg(long, value_name = "N")]
    pub size: Option<u32>,
    /// The packet must not be fragmented
    #[arg(long)]
    pub df: bool,
    /// The packet comes from this address, to the guest
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<IpAddr>,
    /// The guest's own address, where this host does not know it
    #[arg(long, value_name = "ADDRESS")]
    pub source: Option<IpAddr>,
    /// The guest's MAC address, where this host does not know it
    #[arg(long, value_name = "MAC")]
    pub mac: Option<String>,
    /// The guest's next hop, where this host does not know it
    #[arg(long, value_name = "ADDRESS")]
    pub via: Option<IpAddr>,
}

/// `kvmtrace probe`
#[derive(Args, Clone, Debug)]
#[command(override_usage = "kvmtrace probe [OPTIONS] GUEST [to TARGET] [PROTOCOL [PORT]]", after_help = PROBE_HELP)]
pub struct Probe {
    /// The packet.
    #[command(flatten)]
    pub packet: PacketWords,
    /// Find the largest packet that passes, up to --size, and what stops the next
    #[arg(long)]
    pub sweep: bool,
    /// Packets to send, ten a second
    #[arg(short, long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub count: u16,
    /// Exit with 0 only if each probe has this outcome
    #[arg(long, value_enum, value_name = "OUTCOME")]
    pub expect: Option<Expect>,
    /// Tracing of rules.
    #[command(flatten)]
    pub rules: RuleTrace,
    /// Don't ask before sending
    #[arg(short, long)]
    pub yes: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `kvmtrace fix`
#[derive(Args, Clone, Debug)]
#[command(after_help = FIX_STATUS)]
pub struct Fix {
    /// The incident: its id, the beginning of it, or its number in the list that is shown without one
    #[arg(value_name = "INCIDENT", conflicts_with_all = ["undo", "list"])]
    pub incident: Option<String>,
    /// Show what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Don't ask; keep what helps (with --confirm-within it is asked whether to keep it)
    #[arg(short, long)]
    pub yes: bool,
    /// Undo it if nobody says to keep it within this time (default: 60 s)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub confirm_within: Option<Duration>,
    /// Make the traffic with this command, before the fix and after
    #[arg(long, value_name = "COMMAND")]
    pub cmd: Option<String>,
    /// Trace for this time, before the fix and after (default: 5 s)
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Trace nothing: only faults that the configuration shows
    #[arg(long)]
    pub check: bool,
    /// Take back a fix that was kept, by its number
    #[arg(long, value_name = "N")]
    pub undo: Option<u32>,
    /// Show the fixes that were applied
    #[arg(long)]
    pub list: bool,
    /// Hold an undo: how kvmtrace starts itself
    #[arg(long, hide = true)]
    pub helper: bool,
    /// Only this guest and its path (may be given several times)
    #[arg(short, long = "guest", value_name = "NAME")]
    pub guests: Vec<String>,
    /// Only this device (may be given several times)
    #[arg(short, long = "interface", value_name = "DEV")]
    pub interfaces: Vec<String>,
}

/// `kvmtrace explain`
#[derive(Args, Clone, Debug)]
#[command(override_usage = "kvmtrace explain [OPTIONS] GUEST to TARGET [PROTOCOL [PORT]]", after_help = EXPLAIN_STATUS)]
pub struct Explain {
    /// The packet.
    #[command(flatten)]
    pub packet: PacketWords,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

const PROBE_HELP: &str = "Without a target: the guest's gateway, this host, a neighbour, a name server and a machine beyond are probed, as far as they are \
known, after a question. With --from ADDRESS the \
packets enter by the uplink, as if that address had sent them to the guest. docs/probe.md says how others recognise them.";

/// Outcomes of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Expect {
    /// The answer came back
    Answered,
    /// It went out to its receiver; an answer neither came nor was due
    Delivered,
    /// The answer says no
    Refused,
    /// It left this host as it should, and no answer came
    Unanswered,
    /// It entered and never left; no drop was seen
    Lost,
    /// It, or the answer to it, was dropped on this host
    Dropped,
}

const FIX_STATUS: &str = "Exit status: 0 the fix is kept, or there is nothing to fix; 1 it was undone, or no command is offered; 2 fix could not run. \
docs/fix.md says how it is watched and undone.";

/// How long a fix is watched, unless said otherwise.
const WATCHING: Duration = Duration::from_secs(5);

impl Fix {
    /// How long traffic is traced, before the fix and after.
    pub fn watching(&self) -> Duration {
        self.duration.unwrap_or(WATCHING)
    }

    /// What to trace.
    pub fn scope(&self) -> Scope {
        Scope { guests: self.guests.clone(), interfaces: self.interfaces.clone(), ..Scope::default() }
    }
}

const EXPLAIN_STATUS: &str = "Exit status: 0 the packet arrives or leaves this host, 1 it stops, 2 that can't be known or explain could not run.";

/// `kvmtrace watch`
#[derive(Args, Clone, Debug)]
pub struct Watch {
    /// What to trace.
    #[command(flatten)]
    pub scope: Scope,
    /// Tracing of rules.
    #[command(flatten)]
    pub rules: RuleTrace,
    /// Also show the ways of single packets: each device, and how long it took from one to the next
    #[arg(long)]
    pub path: bool,
    /// Of the packets' ways, show those that took at least this time: 5ms, 1s (implies --path)
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub min_latency: Option<Duration>,
    /// Lines per second; what comes faster is summed up, a line per flow and place
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub rate: u32,
    /// Print a JSON object per line
    #[arg(long)]
    pub json: bool,
    /// Stop after this many lines
    #[arg(short, long, value_name = "N")]
    pub count: Option<usize>,
    /// Stop after this time: 5, 5s, 2m
    #[arg(short, long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
}

/// `5`, `5s`, `1.5s`, `200ms`, `2m`, `1h`
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        unit => return Err(format!("{unit:?} is no unit of time; use ms, s, m or h")),
    };
    let number: f64 = digits.parse().map_err(|error| format!("{text:?} is no time ({error}); 5, 5s and 2m are"))?;
    Duration::try_from_secs_f64(number * factor)
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(|| format!("{text:?} is no time to trace for"))
}

/// `127.0.0.1:9985`, `[::1]:9985`, `localhost:9985`, `:9985`, `9985`
fn listen(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:").or(text.strip_prefix(':')).unwrap_or(text);
    if let Ok(port) = port.parse() {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_error| format!("{text:?} is no address and port; 127.0.0.1:9985, [::1]:9985 and 9985 are"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_understood_and_nonsense_is_refused() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(duration("2m"), Ok(Duration::from_mins(2)));
        for nonsense in ["", "s", "-1", "5x", "0", "1e30h", "nan", "5 s"] {
            assert!(duration(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn an_address_to_listen_at_is_this_host_only_unless_said_otherwise() {
        let address = |text| listen(text).map(|address| address.to_string());
        for text in ["9985", ":9985", "localhost:9985", "127.0.0.1:9985"] {
            assert_eq!(address(text).as_deref(), Ok("127.0.0.1:9985"), "{text}");
        }
        assert_eq!(address("0.0.0.0:1").as_deref(), Ok("0.0.0.0:1"));
        assert_eq!(address("[::1]:1").as_deref(), Ok("[::1]:1"));
        for nonsense in ["", ":", "host:1", "127.0.0.1", "127.0.0.1:70000", "::1:1:"] {
            assert!(listen(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_filter_is_the_rest_of_the_line() {
        let cli = Cli::try_parse_from(["kvmtrace", "verdict", "-d", "5", "--json", "host", "10.0.0.5", "and", "tcp"])
            .unwrap();
        let Command::Verdict(verdict) = cli.command else { panic!("not verdict") };
        assert_eq!(verdict.scope.filter, ["host", "10.0.0.5", "and", "tcp"]);
        assert!(verdict.json);
    }
}
