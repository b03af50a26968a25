//! Closed sets that the kernel's tools and recordings name by words.

/// An enum whose values stand in recordings by their names, and a last one for names that this version does not know.
macro_rules! named {
    ($(#[$outer:meta])* $type:ident { $($(#[$meta:meta])* $name:ident = $word:literal,)* } else $(#[doc = $other_doc:literal])* $other:ident = $other_word:literal) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $type {
            $($(#[$meta])* $name,)*
            $(#[doc = $other_doc])* $other,
        }

        impl $type {
            /// As tools and recordings write it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $word,)* Self::$other => $other_word }
            }
        }

        impl From<&str> for $type {
            fn from(name: &str) -> Self {
                match name { $($word => Self::$name,)* _ => Self::$other }
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer).map(|name| Self::from(name.as_str()))
            }
        }
    };
}

named! {
    /// What a route does with packets (`RTN_*`).
    RouteKind {
        /// Leads to a next hop, or to a network on a device.
        Unicast = "unicast",
        /// Drops without a word.
        Blackhole = "blackhole",
        /// Drops, and says that there is no way.
        Unreachable = "unreachable",
        /// Drops, and says that it is forbidden.
        Prohibit = "prohibit",
        /// Ends the search in this table.
        Throw = "throw",
    } else
    /// Of a kind that this version does not know.
    Other = "other"
}

named! {
    /// What a rule of policy routing does (`FR_ACT_*`).
    #[derive(Default)]
    RuleAction {
        /// Searches a table.
        #[default]
        Lookup = "lookup",
        /// Searches the table of the packet's VRF.
        L3mdev = "l3mdev",
        /// Goes on with a later rule.
        Goto = "goto",
        /// Goes on with the next rule.
        Nop = "nop",
        /// Drops without a word.
        Blackhole = "blackhole",
        /// Drops, and says that there is no way.
        Unreachable = "unreachable",
        /// Drops, and says that it is forbidden.
        Prohibit = "prohibit",
    } else
    /// Of a kind that this version does not know.
    Other = "other"
}

named! {
    /// What this host knows of a neighbour (`NUD_*`).
    NeighbourState {
        /// It answered lately.
        Reachable = "reachable",
        /// It answered once.
        Stale = "stale",
        /// It was used since, and is asked soon.
        Delay = "delay",
        /// It is asked.
        Probe = "probe",
        /// It is asked for the first time.
        Incomplete = "incomplete",
        /// It did not answer.
        Failed = "failed",
        /// Set by hand.
        Permanent = "permanent",
        /// The device needs no address.
        NoArp = "noarp",
    } else
    /// Nothing.
    None = "none"
}

named! {
    /// Which of the macvtaps of one device reach each other (`MACVLAN_MODE_*`).
    MacvtapMode {
        /// None; all goes out by the device.
        Private = "private",
        /// None but by way of a switch that sends back.
        Vepa = "vepa",
        /// All.
        Bridge = "bridge",
        /// There is but one, which has the whole device.
        Passthru = "passthru",
        /// Those whose MAC addresses are listed.
        Source = "source",
    } else
    /// Of a kind that this version does not know.
    Other = "unknown"
}

impl NeighbourState {
    /// The neighbour was asked, and no answer came.
    pub fn is_silent(self) -> bool {
        matches!(self, Self::Failed | Self::Incomplete)
    }

    /// Packets go to the address that it has told, or that somebody has set.
    pub fn is_resolved(self) -> bool {
        matches!(self, Self::Reachable | Self::Stale | Self::Delay | Self::Probe | Self::Permanent | Self::NoArp)
    }
}

impl RuleAction {
    /// What a route of the same effect does; none for a rule that decides nothing by itself.
    pub fn as_route(self) -> Option<RouteKind> {
        match self {
            Self::Blackhole => Some(RouteKind::Blackhole),
            Self::Unreachable => Some(RouteKind::Unreachable),
            Self::Prohibit => Some(RouteKind::Prohibit),
            Self::Lookup | Self::L3mdev | Self::Goto | Self::Nop | Self::Other => None,
        }
    }
}

impl MacvtapMode {
    /// What is sent to the macvtap's own address is handed up, and no more (`macvlan_hash_lookup`).
    pub fn hands_up_by_address(self) -> bool {
        matches!(self, Self::Bridge | Self::Vepa | Self::Private)
    }
}

impl RouteKind {
    /// It drops what it is for.
    pub fn forbids(self) -> bool {
        matches!(self, Self::Blackhole | Self::Unreachable | Self::Prohibit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_a_later_version_reads_as_not_known() {
        assert_eq!(RouteKind::from("prohibit"), RouteKind::Prohibit);
        assert_eq!(RouteKind::from("nat"), RouteKind::Other);
        let read: Vec<NeighbourState> = serde_json::from_str(r#"["noarp", "new"]"#).unwrap();
        assert_eq!(read, [NeighbourState::NoArp, NeighbourState::None]);
        assert_eq!(serde_json::to_string(&read).unwrap(), r#"["noarp","none"]"#);
    }
}
