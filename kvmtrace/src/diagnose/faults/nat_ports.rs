//! New connections that no rule drops at postrouting: translation found no free port for them, so conntrack has a connection
//! of the same addresses and ports already and does not confirm this one (`__nf_conntrack_confirm`, `nf_ct_resolve_clash`).

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::place::at;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::{nft_chain, nft_delete, quote};
use crate::event::host::{Backend, Chain, Rule};

/// See the module.
pub fn no_port_left(case: &Case<'_>, drop: &Dropped<'_>, stage: &Stage) -> Option<Judgement> {
    if stage.by_nft == Some(true) || stage.hook != "postrouting" || !matches!(stage.family, "ip" | "ip6") {
        return None;
    }
    let host = case.scene.host;
    let grown = |name: &str| {
        let now = host.counters.get(name).copied().unwrap_or(0);
        now.saturating_sub(case.scene.track.first_host().counters.get(name).copied().unwrap_or(0))
    };
    let failed = grown("conntrack.insert_failed");
    if failed == 0 {
        return None;
    }
    let device = drop.device().or(case.device())?;
    let explanation = format!(
        "{} were of new connections that got addresses and ports of another one by translation: conntrack could not enter them.",
        case.dropped_share()
    );
    let chains = host.netfilter.chains.iter().filter(|chain| chain.hook.as_deref() == Some("postrouting"));
    let narrow =
        chains.flat_map(|chain| chain.rules.iter().map(move |rule| (chain, rule))).find(|(_, rule)| is_narrow(rule));
    let place = at(case.scene, device, stage.point()).of(drop);
    let judgement = Judgement::dropped(stage.cause, place, explanation)
        .evidence([format!("conntrack: {failed} insertions failed during the trace")]);
    let Some((chain, rule)) = narrow else {
        return Some(judgement.fix(Fix::advice(
            "Translate to more addresses (snat to a range), or let the guests open fewer connections to one service at a time.",
        )));
    };
    let advice = Fix::advice(format!("Let the rule \"{}\" give more ports, or all.", rule.text));
    let judgement = judgement.evidence([format!("a rule that gives few ports: \"{}\"", rule.text)]);
    Some(judgement.fixes(widened(chain, rule)).fix(advice))
}

/// It translates to some ports only.
fn is_narrow(rule: &Rule) -> bool {
    rule.text.contains(PORTS) || rule.text.contains("--to-ports")
}

const PORTS: &str = "masquerade to :";

/// The same rule without its ports, before it.
fn widened(chain: &Chain, rule: &Rule) -> Option<Fix> {
    let (before, ports) = rule.text.split_once(PORTS).filter(|_| chain.backend == Backend::Nft)?;
    let rest = ports.split_once(' ').map(|(_, rest)| format!(" {rest}")).unwrap_or_default();
    let (place, handle) = (nft_chain(chain)?, rule.handle?);
    let comment = format!("kvmtrace: all ports, {handle}");
    let wide = format!("insert rule {place} handle {handle} {before}masquerade{rest} comment \"{comment}\"");
    (!rule.text.contains("comment")).then(|| {
        Fix::run(
            format!("nft {}", quote(&wide)),
            nft_delete(&place, &comment),
            "Gives any free port, before the rule that gives few.",
        )
        .risk("Who opens the firewall beyond for these ports alone has to open it for more.")
        .persist("Take the ports out of the rule in the firewall's configuration.")
    })
}
