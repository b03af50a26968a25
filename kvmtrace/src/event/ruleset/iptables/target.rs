//! The targets of iptables, ebtables and arptables.

use super::super::key::Side;
use super::super::nft::action;
use super::super::rule::{Assignment, Choice, MarkSource, Nat, NatKind, NatTarget, Statement, Verdict};
use super::super::value::number;
use super::Reader;

impl Reader<'_> {
    /// Reads what follows `-j`.
    pub(super) fn target(&mut self) -> Vec<Statement> {
        let Some(name) = self.take() else { return Vec::new() };
        if let Some(chain) = self.scope.target(name) {
            return vec![Statement::Verdict(Verdict::Jump(Some(chain)))];
        }
        let verdict = |verdict| vec![Statement::Verdict(verdict)];
        let bridge = self.scope.chain.family == "bridge";
        match name {
            "ACCEPT" => verdict(Verdict::Accept),
            "DROP" => verdict(Verdict::Drop),
            "RETURN" => verdict(Verdict::Return),
            "CONTINUE" => Vec::new(),
            "REJECT" => {
                self.skip_options();
                verdict(Verdict::Reject)
            }
            "QUEUE" => verdict(Verdict::Queue { number: 0, bypass: false }),
            "NFQUEUE" => vec![self.queue()],
            "MARK" => self.mark_target().map_or_else(|| self.unknown("MARK"), |change| vec![Statement::Mark(change)]),
            // ebtables' `mark` marks and then accepts, or does what `--mark-target` says.
            "mark" if bridge => self.bridge_mark(),
            "CONNMARK" => self.connection_mark().map_or_else(|| self.unknown("CONNMARK"), |statement| vec![statement]),
            "NOTRACK" => vec![Statement::NoTrack],
            "CT" => {
                let options = self.options();
                if options.contains(&"--notrack") { vec![Statement::NoTrack] } else { Vec::new() }
            }
            "MASQUERADE" => vec![self.nat(NatKind::Masquerade)],
            "SNAT" => vec![self.nat(NatKind::Source)],
            "DNAT" => vec![self.nat(NatKind::Destination)],
            "REDIRECT" => vec![self.nat(NatKind::Redirect)],
            "NETMAP" => vec![self.network_map()],
            "snat" | "dnat" if bridge => self.bridge_nat(name == "snat"),
            // The frame is handed to this host's own stack.
            "redirect" | "arpreply" if bridge => {
                self.skip_options();
                verdict(Verdict::Taken(name.to_owned()))
            }
            "TPROXY" | "SYNPROXY" | "DNPT" | "SNPT" | "CLUSTERIP" | "mangle" => {
                self.skip_options();
                verdict(Verdict::Taken(name.to_owned()))
            }
            "SET" => {
                let options = self.options();
                options.get(1).map(|set| Statement::Fill((*set).to_owned())).into_iter().collect()
            }
            "LOG" | "NFLOG" | "ULOG" | "log" | "nflog" | "TCPMSS" | "TCPOPTSTRIP" | "TTL" | "HL" | "DSCP" | "TOS"
            | "ECN" | "CLASSIFY" | "TEE" | "AUDIT" | "TRACE" | "CHECKSUM" | "SECMARK" | "CONNSECMARK" | "RATEEST"
            | "IDLETIMER" | "LED" | "HMARK" | "FLOWOFFLOAD" => {
                self.skip_options();
                Vec::new()
            }
            name => {
                self.skip_options();
                self.unknown(name)
            }
        }
    }

    fn unknown(&mut self, name: &str) -> Vec<Statement> {
        self.skip_options();
        vec![Statement::Verdict(Verdict::Taken(name.to_owned()))]
    }

    /// The target's options and their values: all that is left, but for tests that ebtables and arptables write behind it.
    fn options(&mut self) -> Vec<&str> {
        let ends = |word: &String| word.starts_with('-') && !word.starts_with("--") || word == "!";
        let rest = self.words.get(self.at..).unwrap_or_default();
        let count = rest.iter().position(ends).unwrap_or(rest.len());
        self.at += count;
        rest.iter().take(count).map(String::as_str).collect()
    }

    fn skip_options(&mut self) {
        self.options();
    }

    fn queue(&mut self) -> Statement {
        let options = self.options();
        let after = |name: &str| options.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
        let number = after("--queue-num").or_else(|| after("--queue-balance"));
        let number = number.and_then(|number| number.split(':').next()).and_then(|number| number.parse().ok());
        Statement::Verdict(Verdict::Queue { number: number.unwrap_or(0), bypass: options.contains(&"--queue-bypass") })
    }

    /// `--set-xmark value/mask`: the mask's bits are cleared, then the value is flipped in (`mark_tg`).
    fn mark_target(&mut self) -> Option<Assignment> {
        let options = self.options();
        let [option, text] = options.as_slice() else { return None };
        change(option, text)
    }

    fn bridge_mark(&mut self) -> Vec<Statement> {
        let options = self.options();
        let mut statements = Vec::new();
        let mut verdict = Some(Verdict::Accept);
        for pair in options.chunks(2) {
            let [option, text] = pair else { continue };
            match *option {
                "--mark-target" => {
                    verdict = match *text {
                        "DROP" => Some(Verdict::Drop),
                        "RETURN" => Some(Verdict::Return),
                        "CONTINUE" => None,
                        _ => Some(Verdict::Accept),
                    }
                }
                option => {
                    let name = match option {
                        "--mark-set" => "--set-mark",
                        "--mark-or" => "--or-mark",
                        "--mark-and" => "--and-mark",
                        "--mark-xor" => "--xor-mark",
                        other => other,
                    };
                    let unknown = Assignment::copy(MarkSource::Unknown);
                    statements.push(Statement::Mark(change(name, text).unwrap_or(unknown)));
                }
            }
        }
        statements.extend(verdict.map(Statement::Verdict));
        statements
    }

    fn connection_mark(&mut self) -> Option<Statement> {
        let options = self.options();
        match options.first().copied()? {
            name @ ("--save-mark" | "--restore-mark") => {
                let masked = options.len() > 1
                    && options.windows(2).any(|pair| {
                        matches!(pair[0], "--nfmask" | "--ctmask" | "--mask") && number(pair[1]) != Some(0xffff_ffff)
                    });
                let from = if masked { MarkSource::Unknown } else { MarkSource::Other };
                let change = Assignment::copy(from);
                Some(if name == "--save-mark" { Statement::ConnectionMark(change) } else { Statement::Mark(change) })
            }
            option => change(option, options.get(1)?).map(Statement::ConnectionMark),
        }
    }

    fn nat(&mut self, kind: NatKind) -> Statement {
        let options = self.options();
        let after = |names: &[&str]| options.windows(2).find(|pair| names.contains(&pair[0])).map(|pair| pair[1]);
        let to = if let Some(text) = after(&["--to-destination", "--to-source"]) {
            action::target(text).unwrap_or_else(|| NatTarget::Unknown(text.to_owned()))
        } else {
            let port: Option<Choice<u16>> =
                after(&["--to-ports"]).and_then(|ports| action::choice(ports, |port| port.parse().ok()));
            NatTarget::Fixed { address: None, port }
        };
        Statement::Nat(Nat { kind, to })
    }

    /// Before routing the destination's network is replaced, behind it the source's (`netmap_tg4`).
    fn network_map(&mut self) -> Statement {
        let kind = match self.scope.chain.name.as_str() {
            "PREROUTING" | "OUTPUT" => NatKind::Destination,
            _ => NatKind::Source,
        };
        let options = self.options();
        let to = options.get(1).copied().unwrap_or_default();
        let network = to.split_once('/').and_then(|(address, prefix)| {
            Some(crate::event::host::Network { address: address.parse().ok()?, prefix: prefix.parse().ok()? })
        });
        let to = network.map_or_else(|| NatTarget::Unknown(to.to_owned()), NatTarget::Network);
        Statement::Nat(Nat { kind, to })
    }

    /// `--to-src MAC --snat-target ACCEPT`
    fn bridge_nat(&mut self, source: bool) -> Vec<Statement> {
        let options = self.options();
        let after = |names: &[&str]| options.windows(2).find(|pair| names.contains(&pair[0])).map(|pair| pair[1]);
        let side = if source { Side::Source } else { Side::Destination };
        let address =
            after(&["--to-src", "--to-source", "--to-dst", "--to-destination"]).and_then(|text| text.parse().ok());
        let mut statements: Vec<_> = address.map(|address| Statement::SetMac(side, address)).into_iter().collect();
        match after(&["--snat-target", "--dnat-target"]) {
            Some("CONTINUE") => {}
            Some("DROP") => statements.push(Statement::Verdict(Verdict::Drop)),
            Some("RETURN") => statements.push(Statement::Verdict(Verdict::Return)),
            _ => statements.push(Statement::Verdict(Verdict::Accept)),
        }
        statements
    }
}

/// One of the ways in which a mark is changed.
fn change(option: &str, text: &str) -> Option<Assignment> {
    let (value, mask) = text.split_once('/').map_or((text, None), |(value, mask)| (value, Some(mask)));
    let value = u32::try_from(number(value)?).ok()?;
    let mask = match mask {
        Some(mask) => u32::try_from(number(mask)?).ok()?,
        None => u32::MAX,
    };
    let mut change = Assignment::copy(MarkSource::Own);
    match option {
        "--set-xmark" => {
            change.clear = mask;
            change.toggle = value;
        }
        // `--set-mark` clears the value's own bits as well.
        "--set-mark" => {
            change.clear = mask | value;
            change.toggle = value;
        }
        "--and-mark" => change.and(value),
        "--or-mark" => change.or(value),
        "--xor-mark" => change.xor(value),
        _ => return None,
    }
    Some(change)
}
