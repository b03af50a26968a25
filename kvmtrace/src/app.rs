//! The composition root: the one place that knows all the parts. Turns what was typed into a source, the pipeline and a
//! sink, and the outcome into an exit status.

mod alone;
mod check;
mod color;
mod command;
mod elsewhere;
mod errands;
mod explain;
mod fix;
mod keep;
mod metrics;
mod netns;
mod outcome;
mod part;
mod probe;
mod question;
mod ready;
mod record;
mod screen;
mod session;
mod show;
mod watch;

use crate::cli::{Cli, Command, Verdict};
use crate::host;
use crate::kernel::privilege;
use crate::pipeline::Pipeline;
use crate::sink;
use crate::source::Source as _;
use anyhow::{Context as _, bail};
use color::colored;
use command::not_run;
pub use command::{is_keeper, keep};
pub use errands::{run_errands, runs_errands};
use outcome::Outcome;
use session::{End, Extras, Session};
use show::show;
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

/// Runs the command. Errors are told in one line on standard error.
pub fn main(cli: &Cli) -> ExitCode {
    log(cli);
    // Before any thread.
    if let Err(error) = netns::enter(cli) {
        return failed(&error);
    }
    // Capabilities are each thread's own: one with nothing to do ends before they are given up.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = match runtime.enable_all().thread_keep_alive(Duration::from_millis(5)).build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&anyhow::Error::new(error).context("starting")),
    };
    match runtime.block_on(run(cli)) {
        Ok(Outcome::Clean) => ExitCode::SUCCESS,
        Ok(Outcome::Faults) => ExitCode::from(1),
        Ok(Outcome::Unknown) => ExitCode::from(2),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        // Errors of files have a name; one without is of the output.
        Err(error) if error.chain().count() == 1 && error.is::<std::io::Error>() => {
            failed(&error.context("standard output"))
        }
        Err(error) => failed(&elsewhere::explained(error)),
    }
}

/// Nobody reads any more (`kvmtrace watch | head`): not an error.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
    })
}

fn failed(error: &anyhow::Error) -> ExitCode {
    let line: Vec<String> = error.chain().map(|cause| cause.to_string().replace('\n', " ")).collect();
    // Standard error may be gone too; then there is nobody to tell.
    drop(writeln!(std::io::stderr(), "kvmtrace: {}", line.join(": ")));
    ExitCode::from(2)
}

fn log(cli: &Cli) {
    if matches!(cli.command, Command::Live(_) | Command::Replay(_)) {
        // The screen belongs to the live view, which shows what is wrong itself.
        return;
    }
    let level = match (cli.common.quiet, cli.common.verbose) {
        (true, _) => tracing::Level::ERROR,
        (false, 0) => tracing::Level::WARN,
        (false, 1) => tracing::Level::INFO,
        (false, 2) => tracing::Level::DEBUG,
        // Every event, as it crosses the middle.
        (false, _) => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_ansi(colored(cli, &std::io::stderr()))
        .without_time()
        .with_target(false)
        .init();
}

async fn run(cli: &Cli) -> anyhow::Result<Outcome> {
    match &cli.command {
        Command::Guests { json } => guests(cli, *json).await,
        Command::Check(options) => check::check(cli, options).await,
        Command::Probe(options) => Box::pin(probe::probe(cli, options)).await,
        Command::Fix(options) => fix::fix(cli, options).await,
        Command::Explain(options) => explain::explain(cli, options).await,
        Command::Watch(options) => watch::watch(cli, options).await,
        Command::Verdict(options) => verdict(cli, options).await,
        Command::Live(command) => screen::live(cli, command).await,
        Command::Replay(command) => screen::replay(cli, command).await,
        Command::Record(command) => record::record(cli, command).await,
        Command::Report(command) => record::report(cli, command),
        Command::Export(command) => record::export(cli, command),
        Command::Metrics(command) => metrics::metrics(cli, command).await,
        Command::Clean => clean(cli).await,
        Command::Completions { shell } => {
            let mut command = <Cli as clap::CommandFactory>::command();
            // It panics where its output can't be written.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command, "kvmtrace", &mut script);
            std::io::stdout().write_all(&script)?;
            Ok(Outcome::Clean)
        }
        Command::Man { of, output } => manual(of.as_deref(), output.as_deref()),
    }
}

/// Prints one manual page, or writes all of them into a directory.
fn manual(of: Option<&str>, directory: Option<&Path>) -> anyhow::Result<Outcome> {
    // What `help` shows are these very pages.
    let mut command = <Cli as clap::CommandFactory>::command().disable_help_subcommand(true);
    if let Some(directory) = directory {
        let written = clap_mangen::generate_to(command, directory);
        written.with_context(|| format!("{}: can't write the manual pages there", directory.display()))?;
        return Ok(Outcome::Clean);
    }
    // Each command bears the common options, and its name is two words.
    command.build();
    let page = match of {
        None => command,
        Some(name) => command
            .find_subcommand(name)
            .with_context(|| format!("{name}: no such command; `kvmtrace help` lists them"))?
            .clone(),
    };
    clap_mangen::Man::new(page).render(&mut std::io::stdout())?;
    Ok(Outcome::Clean)
}

async fn verdict(cli: &Cli, options: &Verdict) -> anyhow::Result<Outcome> {
    let several = netns::several(cli)?;
    if !several.is_empty() {
        return netns::verdict(cli, options, several).await;
    }
    let end = End::new(options.cmd.as_deref(), options.duration);
    if end == End::Signal && !cli.common.quiet && std::io::stderr().is_terminal() {
        drop(writeln!(std::io::stderr(), "tracing; Ctrl-C ends it and shows the verdicts"));
    }
    let destination = options.output.as_deref().map(|path| record::destination(path, options.force)).transpose()?;
    let extras = Extras { every_packet: options.packets.every, rules: options.rules, ..Extras::default() };
    let session = Session::start(&options.scope, end, extras).await?;
    let source = record::tee(session.source, destination.as_ref())?.with_snaplen(options.packets.snaplen);
    let mut source = source.that_goes_on();
    let mut pipeline = Pipeline::default();
    while let Some(event) = source.next().await? {
        tracing::trace!(?event);
        pipeline.take(&event);
    }
    let report = pipeline.report();
    let outcome = show(cli, &report, options.json, sink::text::report)?;
    if !options.json {
        let mut out = std::io::stdout().lock();
        sink::text::further_faults(pipeline.further_faults(&report), &mut out)?;
        out.flush()?;
    }
    // The verdict stands; the recording that was asked for does not.
    if let Some(failure) = source.failure() {
        return Err(failure.into());
    }
    not_run(source.inner().ending().status()).map_or(Ok(outcome), |complaint| bail!("{complaint}"))
}

async fn guests(cli: &Cli, json: bool) -> anyhow::Result<Outcome> {
    let host = host::snapshot().await?;
    let mut out = std::io::stdout().lock();
    if json {
        sink::guests::json(&host, &mut out)?;
    } else {
        sink::guests::text(&host, colored(cli, &std::io::stdout()), &mut out)?;
        if host.guests.is_empty() {
            for hint in elsewhere::hints("kvmtrace guests") {
                writeln!(out, "{hint}")?;
            }
        }
    }
    out.flush()?;
    Ok(Outcome::Clean)
}

/// Removes what killed runs have left.
async fn clean(cli: &Cli) -> anyhow::Result<Outcome> {
    privilege::check()?;
    crate::probe::restore_grace_periods().context("/sys/kernel/rcu_expedited")?;
    let host = host::snapshot().await?;
    let cleaned = crate::probe::clean(host.links.values().map(|link| link.name.as_str()));
    if !cli.common.quiet {
        let mut out = std::io::stdout().lock();
        match cleaned.as_slice() {
            [] => writeln!(out, "nothing was left behind")?,
            devices => writeln!(out, "removed hooks from {}", devices.join(", "))?,
        }
    }
    Ok(Outcome::Clean)
}
