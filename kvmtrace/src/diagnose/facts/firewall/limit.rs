//! Drops by a limit: a rule that drops what exceeds it, or one that accepts up to it and leaves the rest to what follows.

use crate::diagnose::facts::scene::Scene;
use crate::event::host::{Chain, Rule};
use crate::event::ruleset::{Condition, RuleReference, Statement, Verdict};
use crate::topology::rules::Rules;

/// The rule whose limit the packets exceeded that `rule`, or the policy of `chain`, dropped. Where it accepts up to a limit, packets of the same flow have to have passed
/// (`some_passed`): else nothing says that this rule was ever for them.
pub fn exceeded<'a>(
    scene: &Scene<'a>,
    chain: &'a Chain,
    rule: Option<&'a Rule>,
    some_passed: bool,
    fits: &dyn Fn(RuleReference) -> bool,
) -> Option<(&'a Chain, &'a Rule)> {
    let index = scene.host.netfilter.chains.iter().position(|other| std::ptr::eq(other, chain))?;
    let rules = &scene.topology().rules;
    let number = rule.and_then(|rule| chain.rules.iter().position(|other| std::ptr::eq(other, rule)));
    if let (Some(rule), Some(number)) = (rule, number)
        && has_limit(rules, RuleReference { chain: index, rule: Some(number) }, true)
    {
        return Some((chain, rule));
    }
    let before = number.unwrap_or(chain.rules.len());
    let mut earlier = chain.rules.iter().enumerate().take(before).filter(|_| some_passed);
    earlier.find_map(|(number, rule)| {
        let reference = RuleReference { chain: index, rule: Some(number) };
        (has_limit(rules, reference, false) && accepts(rules, reference) && fits(reference)).then_some((chain, rule))
    })
}

fn has_limit(rules: &Rules, reference: RuleReference, above: bool) -> bool {
    let is_limit = |condition: &Condition| matches!(condition, Condition::Limit { over } if *over == above);
    statements(rules, reference).iter().any(|statement| matches!(statement, Statement::Test(test) if is_limit(test)))
}

fn accepts(rules: &Rules, reference: RuleReference) -> bool {
    statements(rules, reference).iter().any(|statement| matches!(statement, Statement::Verdict(Verdict::Accept)))
}

fn statements(rules: &Rules, reference: RuleReference) -> &[Statement] {
    let rule = rules.chain(reference.chain).zip(reference.rule).and_then(|(chain, number)| chain.rules.get(number));
    rule.map_or(&[], |rule| rule.statements.as_slice())
}
