//! The listings of rules that are asked for: nothing else is ever run to read a host.

use serde::{Deserialize, Serialize};

/// A tool, and what it lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Listing {
    /// All of nftables as JSON.
    NftJson,
    /// The same as text.
    NftText,
    /// The sets of ipset.
    Sets,
    /// All tables of an iptables tool.
    Saved(SaveTool),
    /// A table of an older tool that can't save.
    Table(TableTool, String),
}

/// `iptables-save` and its kin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum SaveTool {
    IptablesNft,
    Ip6tablesNft,
    EbtablesNft,
    ArptablesNft,
    IptablesLegacy,
    Ip6tablesLegacy,
    Iptables,
    Ip6tables,
}

/// Tools that only list one table for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum TableTool {
    Ebtables,
    Arptables,
}

impl SaveTool {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::IptablesNft => "iptables-nft-save",
            Self::Ip6tablesNft => "ip6tables-nft-save",
            Self::EbtablesNft => "ebtables-nft-save",
            Self::ArptablesNft => "arptables-nft-save",
            Self::IptablesLegacy => "iptables-legacy-save",
            Self::Ip6tablesLegacy => "ip6tables-legacy-save",
            Self::Iptables => "iptables-save",
            Self::Ip6tables => "ip6tables-save",
        }
    }
}

impl Listing {
    /// The tool's name.
    pub(super) fn tool(&self) -> &'static str {
        match self {
            Self::NftJson | Self::NftText => "nft",
            Self::Sets => "ipset",
            Self::Saved(tool) => tool.name(),
            Self::Table(TableTool::Ebtables, _) => "ebtables-legacy",
            Self::Table(TableTool::Arptables, _) => "arptables-legacy",
        }
    }

    /// Its arguments.
    pub(super) fn arguments(&self) -> Vec<&str> {
        match self {
            Self::NftJson => vec!["-j", "list", "ruleset"],
            Self::NftText => vec!["-a", "list", "ruleset"],
            Self::Sets => vec!["save"],
            Self::Saved(_) => vec!["-c"],
            Self::Table(TableTool::Ebtables, table) => vec!["-t", table, "-L", "--Lc"],
            Self::Table(TableTool::Arptables, table) => vec!["-t", table, "-nvL"],
        }
    }

    /// A table's name is no option.
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Self::Table(_, table) => !table.is_empty() && table.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'),
            Self::NftJson | Self::NftText | Self::Sets | Self::Saved(_) => true,
        }
    }
}
