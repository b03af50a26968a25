//! From a rule's text to its type.

use super::names::Names;
use super::rule::{Rule, Statement, Verdict};
use super::{iptables, nft};
use crate::event::host::{self, Backend, Chain};

impl Names<'_> {
    /// What a rule of this chain means.
    pub fn rule(&self, chain: &Chain, rule: &host::Rule) -> Rule {
        let scope = self.scope(chain);
        let mut statements = match chain.backend {
            Backend::Nft => nft::statements(&rule.text, &scope),
            Backend::IptablesNft | Backend::IptablesLegacy => iptables::statements(&rule.text, &scope),
        };
        // Behind what is not understood there may be a verdict, which the rule's reader knows from nft's JSON.
        if matches!(statements.last(), Some(Statement::Unknown(_))) {
            let mut known = rule.verdict.as_deref().map(|verdict| scope.verdicts(verdict)).unwrap_or_default();
            let takes = |word: &str| matches!(word, "tproxy" | "fwd" | "synproxy" | "xt");
            if known.is_empty() && rule.text.split_whitespace().any(takes) {
                known.push(Verdict::Taken(rule.text.clone()));
            }
            statements.push(Statement::Perhaps(known));
        }
        Rule { statements }
    }
}
