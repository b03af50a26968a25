//! `kvmtrace fix`: applies a fix under watch.
//!
//! 1. [`observe`] traces for a while and reads the configuration: the incidents of now, with commands made for this host as it
//!    is. A command from elsewhere is never run.
//! 2. One incident is chosen; command, scope, prediction and undo are shown.
//! 3. [`helper`] is started before anything is changed. It is a process of its own that holds the undo, and runs it when
//!    kvmtrace dies, whatever kills it, or when nobody confirms in time.
//! 4. The command runs; [`watch`] looks at the same traffic again, or sends a probe. A fix that does not help, or after which
//!    something else fails, is undone.
//! 5. The operator is asked to keep it. No answer is a no.
//! 6. [`journal`] has the command, its undo and the result of each.

mod ask;
mod helper;
mod journal;
mod lock;
mod observe;
mod watch;

use super::color::view;
use super::outcome::Outcome;
use crate::cli::{Cli, Fix as Options};
use crate::diagnose::report::{Fix, Incident};
use crate::kernel::privilege;
use crate::sink;
use anyhow::{Context as _, bail};
use ask::Answer;
use helper::Helper;
use journal::{Entry, Journal, Outcome as Result_};
use lock::Lock;
use observe::{Seen, is_unchanged, observe};
use std::io::Write as _;
use std::time::Duration;
use watch::Effect;

/// How long the operator has to keep a fix, unless said otherwise.
const CONFIRM_WITHIN: Duration = Duration::from_mins(1);

/// Runs the command.
pub(super) async fn fix(cli: &Cli, options: &Options) -> anyhow::Result<Outcome> {
    if options.helper {
        helper::serve()?;
        return Ok(Outcome::Clean);
    }
    if options.list {
        return list();
    }
    privilege::check()?;
    let lock = Lock::take()?;
    if let Some(number) = options.undo {
        return undo(number);
    }
    let seen = observe(options).await?;
    let incidents = seen.incidents();
    if incidents.is_empty() {
        say("no fault found: nothing to fix")?;
        return Ok(Outcome::Clean);
    }
    let Some(incident) = choose(cli, options, &seen, &incidents).await? else {
        say("nothing was changed")?;
        return Ok(Outcome::Faults);
    };
    let first = incident.fixes.first();
    let Some((fix, command)) = first.and_then(|fix| Some((fix, fix.command.as_deref()?))) else {
        let why = first.map_or("it has no fix", |fix| fix.why.as_str());
        say(&format!("no command is offered for this incident; next: {}", sink::escape::escape(why)))?;
        return Ok(Outcome::Faults);
    };
    show(fix)?;
    if options.dry_run {
        say("nothing was changed (--dry-run)")?;
        return Ok(Outcome::Clean);
    }
    let Some(undo) = fix.undo.as_deref() else {
        say("this command has no undo, so it is not tried; run it yourself if that is what you want")?;
        return Ok(Outcome::Faults);
    };
    if !options.yes && ask::ask("Apply it?", None).await != Answer::Yes {
        say("nothing was changed")?;
        return Ok(Outcome::Faults);
    }
    let mut attempt = Attempt { options, seen: &seen, incident, fix, command, undo, lock: &lock };
    attempt.run().await
}

/// A fix that is tried.
struct Attempt<'a> {
    options: &'a Options,
    seen: &'a Seen,
    incident: &'a Incident,
    fix: &'a Fix,
    command: &'a str,
    undo: &'a str,
    lock: &'a Lock,
}

impl Attempt<'_> {
    async fn run(&mut self) -> anyhow::Result<Outcome> {
        if !is_unchanged(&self.seen.host, &crate::host::snapshot().await?) {
            bail!("this host has changed since the fix was made for it; nothing was done, start again");
        }
        let within = self.options.confirm_within.unwrap_or(CONFIRM_WITHIN);
        let journal = Journal::open()?;
        let number = journal.begin(&Entry::new(self.incident, self.fix, self.command, self.undo)?)?;
        let patience = self.options.watching() + within + watch::PROBE;
        let mut helper = Helper::start(self.lock, &journal, number, self.undo, patience)?;
        let result = self.try_out(&mut helper, within).await;
        let (kept, why) = match result {
            Ok(Ok(())) => (true, String::new()),
            Ok(Err(why)) => (false, why),
            Err(error) => (false, format!("{error:#}")),
        };
        if kept {
            helper.keep()?;
            say(&format!("kept; `kvmtrace fix --undo {number}` takes it back"))?;
            if let Some(persist) = &self.fix.persist {
                say(&format!("until the next boot. To keep it for good: {}", sink::escape::escape(persist)))?;
            }
            return Ok(Outcome::Clean);
        }
        say(&why)?;
        let undone = helper.undo(&why)?;
        say(if undone { "undone: this host is as before" } else { "the undo failed; kvmtrace fix --list shows it" })?;
        Ok(Outcome::Faults)
    }

    /// Applies the fix and looks at what it does; the inner error says why it is not kept.
    async fn try_out(&self, helper: &mut Helper, within: Duration) -> anyhow::Result<Result<(), String>> {
        let output = helper::shell(self.command).output();
        let output = output.context("running the command")?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let said = sink::escape::escape(said.lines().next().unwrap_or_default());
            return Ok(Err(format!("the command failed ({}): {said}", output.status)));
        }
        say("applied; watching the same traffic")?;
        match watch::effect(self.options, self.seen, self.incident).await? {
            Effect::Helped(how) => say(&how)?,
            Effect::Useless(why) | Effect::Harmful(why) => return Ok(Err(why)),
        }
        if self.options.yes && self.options.confirm_within.is_none() {
            return Ok(Ok(()));
        }
        helper.asking(within)?;
        let question = format!("Keep it? It is undone in {} s without an answer.", within.as_secs_f64().ceil());
        Ok(match ask::ask(&question, Some(within)).await {
            Answer::Yes => Ok(()),
            Answer::No => Err("not kept".to_owned()),
            Answer::None => Err("no answer came".to_owned()),
        })
    }
}

/// The incident that was named, or that the operator chooses.
async fn choose<'a>(
    cli: &Cli,
    options: &Options,
    seen: &Seen,
    incidents: &[&'a Incident],
) -> anyhow::Result<Option<&'a Incident>> {
    if let Some(name) = &options.incident {
        let number = name.parse::<usize>().ok().and_then(|number| incidents.get(number.checked_sub(1)?));
        let by_id = || incidents.iter().find(|incident| name.len() >= 4 && incident.id.starts_with(name.as_str()));
        let found = number.or_else(by_id);
        return found.copied().map(Some).with_context(|| {
            let ids: Vec<&str> = incidents.iter().map(|incident| incident.id.as_str()).collect();
            format!("{name}: no such incident here now; there are: {}", ids.join(", "))
        });
    }
    {
        let mut out = std::io::stdout().lock();
        for (number, incident) in incidents.iter().enumerate() {
            writeln!(out, "{}.", number + 1)?;
            sink::text::incident(seen.report_of(incident), incident, view(cli), &mut out)?;
        }
        out.flush()?;
    }
    if let [only] = incidents {
        return Ok(Some(only));
    }
    if options.yes {
        bail!("there are {} incidents: name the one to fix", incidents.len());
    }
    let answer = ask::line(&format!("Which one? [1-{}] ", incidents.len()), None).await;
    let number = answer.and_then(|answer| answer.trim().parse::<usize>().ok());
    Ok(number.and_then(|number| incidents.get(number.checked_sub(1)?).copied()))
}

fn show(fix: &Fix) -> anyhow::Result<()> {
    let escape = sink::escape::escape;
    say(&format!("fix    {}", escape(fix.command.as_deref().unwrap_or_default())))?;
    say(&format!("undo   {}", fix.undo.as_deref().map_or_else(|| "none".to_owned(), escape)))?;
    if let Some(scope) = &fix.scope {
        say(&format!("scope  {}", escape(scope)))?;
    }
    if let Some(prediction) = &fix.prediction {
        say(&format!("model  {}", escape(&sink::text::prediction_words(prediction))))?;
    }
    if let Some(risk) = &fix.risk {
        say(&format!("risk   {}", escape(risk)))?;
    }
    Ok(())
}

fn list() -> anyhow::Result<Outcome> {
    let entries = Journal::open()?.entries()?;
    if entries.is_empty() {
        say("no fix was applied by kvmtrace")?;
    }
    for entry in entries {
        let escape = sink::escape::escape;
        say(&format!(
            "{:>3}  {}  {}  {}",
            entry.number,
            escape(&entry.time),
            entry.result.words(),
            escape(&entry.cause)
        ))?;
        say(&format!("     fix   {}", escape(&entry.command)))?;
        say(&format!("     undo  {}", escape(&entry.undo)))?;
    }
    Ok(Outcome::Clean)
}

/// Takes an earlier fix back.
fn undo(number: u32) -> anyhow::Result<Outcome> {
    let journal = Journal::open()?;
    let entry = journal.entries()?.into_iter().find(|entry| entry.number == number);
    let entry = entry.with_context(|| format!("{number}: no such fix; kvmtrace fix --list shows them"))?;
    if !entry.is_of_now()? {
        bail!("fix {number} was made before a reboot or in another network namespace: it does not hold here");
    }
    if entry.result != Result_::Kept {
        bail!("fix {number} does not hold any more: {}", entry.result.words());
    }
    let done = helper::run(&entry.undo);
    journal.end(number, if done { Result_::TakenBack } else { Result_::UndoFailed })?;
    say(if done { "taken back" } else { "the undo failed" })?;
    Ok(if done { Outcome::Clean } else { Outcome::Faults })
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
