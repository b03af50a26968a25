//! Which fix is offered first: one that the model expects to bring these packets through, or can say nothing against, that
//! breaks no other flow and takes no protection away. Where there is none, the first entry says what is to be done instead.

use super::fix::scope::{self, removed_protection};
use super::report::{Fix, Outcome, Prediction};
use crate::event::HostState;

/// Completes fixes and puts them in order.
pub(super) fn offer(host: &HostState, fixes: &mut Vec<Fix>) {
    for fix in fixes.iter_mut() {
        scope::complete(host, fix);
        if fix.command.is_some() && fix.prediction.is_none() {
            let reason = "this is about a device or the host, and no packet of a flow was traced to try it with";
            fix.prediction = Some(Prediction::unknown(reason.to_owned()));
        }
    }
    let Some(first) = fixes.first().filter(|fix| fix.command.is_some()) else { return };
    let Some(objection) = objection(host, first) else { return };
    let command = first.command.clone().unwrap_or_default();
    let better = fixes.iter().position(|fix| fix.command.is_some() && self::objection(host, fix).is_none());
    if let Some(better) = better {
        let fix = fixes.remove(better);
        fixes.insert(0, fix);
        return;
    }
    fixes.insert(0, Fix::advice(format!("No single command is safe to offer first: with `{command}` {objection}.")));
}

/// Why a fix may not come first.
fn objection(host: &HostState, fix: &Fix) -> Option<String> {
    let prediction = fix.prediction.as_ref()?;
    if prediction.outcome == Outcome::NextObstacle {
        return Some(format!("{}; that has to be fixed as well", prediction.reason));
    }
    match prediction.breaks.len() {
        0 => removed_protection(host, fix),
        1 => Some("a flow that passes now would stop".to_owned()),
        count => Some(format!("{count} flows that pass now would stop")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::report::Cause;
    use proptest::prelude::*;

    fn fix(command: bool, outcome: Outcome, breaks: usize) -> Fix {
        let fix = if command {
            Fix::run("true".to_owned(), "false".to_owned(), "Because it helps.")
        } else {
            Fix::advice("Ask.")
        };
        let prediction = Prediction {
            outcome,
            obstacle: (outcome == Outcome::NextObstacle).then_some(Cause::NoRoute),
            reason: "these packets then stop at eth0".to_owned(),
            opens: None,
            breaks: vec!["0".repeat(16); breaks],
        };
        Fix { prediction: command.then_some(prediction), ..fix }
    }

    proptest! {
        #[test]
        fn a_first_command_never_breaks_or_fails(
            drawn in prop::collection::vec((any::<bool>(), 0..3_u8, 0..2_usize), 1..6)
        ) {
            let outcome = |number| match number { 0 => Outcome::Restores, 1 => Outcome::NextObstacle, _ => Outcome::Unknown };
            let before: Vec<Fix> = drawn.iter().map(|(command, number, breaks)| fix(*command, outcome(*number), *breaks)).collect();
            let mut after = before.clone();
            offer(&HostState::default(), &mut after);
            let first = after.first().unwrap();
            if let Some(prediction) = &first.prediction {
                prop_assert!(prediction.outcome != Outcome::NextObstacle && prediction.breaks.is_empty());
            } else {
                prop_assert!(first.command.is_none() && first.why.len() >= 4);
            }
            let commands = |fixes: &[Fix]| fixes.iter().filter(|fix| fix.command.is_some()).count();
            prop_assert_eq!(commands(&before), commands(&after), "no command is lost");
        }
    }
}
