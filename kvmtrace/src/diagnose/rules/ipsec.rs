//! `ipsec-policy`: a policy of `IPsec` covers the packet and there is no state to send it with, or the policy blocks it
//! (`xfrm_lookup_with_ifid`, `__xfrm_policy_check`).

use crate::diagnose::facts::place::at;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point};

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !drop.because(&["XFRM_POLICY", "XFRM_NO_STATES"]) {
        return None;
    }
    let scene = case.scene;
    let device = drop.device().or(case.device())?;
    let key = drop.key();
    let (from, to) = (key.source, key.destination);
    let explanation = format!(
        "{} are covered by an IPsec policy of this host (from {from} to {to}) that blocks them, or for which there is no state: the tunnel is not up.",
        case.dropped_share()
    );
    Some(
        Judgement::dropped(Cause::IpsecPolicy, at(scene, device, Point::Routing).of(drop), explanation)
            .fix(Fix::advice(format!(
                "Find the policy (ip xfrm policy list: the one whose networks hold {from} and {to}) and bring its tunnel up (swanctl --initiate, ipsec up, or the daemon's log says why not); if the policy is left over, ip xfrm policy delete with its src, dst and dir. ip xfrm state and /proc/net/xfrm_stat show what is missing."
            ))),
    )
}
