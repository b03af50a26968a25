//! A drop as the rules see it. Neither the number of a reason nor one function name is stable between kernels, so
//! rules ask for sets of both; where a kernel tells no reason (before 5.17, or at a site that still had none), the
//! function decides together with the host's state.

use super::sites::Site;
use crate::event::{DropSite, FlowKey, IfIndex, MacAddress, PacketRecord};
use crate::track::{DropTotals, Flow};

/// One drop site of one flow.
#[derive(Clone, Copy, Debug)]
pub struct Dropped<'a> {
    /// The flow under the key that it died with.
    pub flow: &'a Flow,
    /// Where.
    pub site: &'a DropSite,
    /// How much.
    pub totals: &'a DropTotals,
}

/// A function's name without what the compiler appended: `br_forward.isra.0`.
pub fn plain(function: &str) -> &str {
    function.split('.').next().unwrap_or(function)
}

/// Source and destination of a record that has an Ethernet header.
pub fn macs(record: &PacketRecord) -> Option<(MacAddress, MacAddress)> {
    let destination: &[u8; 6] = record.header.get(..6)?.try_into().ok()?;
    let source: &[u8; 6] = record.header.get(6..12)?.try_into().ok()?;
    (record.ethernet && *source != [0; 6]).then_some((MacAddress(*source), MacAddress(*destination)))
}

impl<'a> Dropped<'a> {
    /// Source and destination MAC address of the frame: as one of the packets died, else as the flow came in.
    pub fn macs(&self) -> Option<(MacAddress, MacAddress)> {
        let entered = || self.flow.entry().map(|(_, counters)| (counters.source_mac, counters.destination_mac));
        self.example().and_then(macs).or_else(entered).filter(|(source, _)| !source.is_zero())
    }

    /// The key that it died with: a tunnel's, for what was inside its packet.
    pub fn key(&self) -> FlowKey {
        self.totals.outer.unwrap_or(self.flow.key)
    }

    /// It died inside a tunnel's packet.
    pub fn is_in_tunnel(&self) -> bool {
        self.totals.outer.is_some()
    }

    /// The reason's name; `NOT_SPECIFIED` where there is none.
    pub fn reason(&self) -> &'a str {
        self.site.reason.as_deref().unwrap_or("NOT_SPECIFIED")
    }

    /// The function's plain name.
    pub fn function(&self) -> &'a str {
        self.site.function.as_deref().map_or("", plain)
    }

    /// `skb->dev`.
    pub fn device(&self) -> Option<IfIndex> {
        self.site.device
    }

    /// The reason says nothing.
    pub fn is_unspecified(&self) -> bool {
        self.reason() == "NOT_SPECIFIED"
    }

    /// The reason is one of these.
    pub fn because(&self, reasons: &[&str]) -> bool {
        reasons.contains(&self.reason())
    }

    /// It died in one of these functions.
    pub fn within(&self, site: Site) -> bool {
        site.has(self.function())
    }

    /// One of these functions is on the stack, or is where it died.
    pub fn through(&self, site: Site) -> bool {
        self.within(site) || self.totals.stack().iter().any(|name| site.has(plain(name)))
    }

    /// One of these functions, with one of these reasons or none told.
    pub fn is(&self, reasons: &[&str], site: Site) -> bool {
        self.within(site) && (self.is_unspecified() || self.because(reasons))
    }

    /// How the kernel came there.
    pub fn stack(&self) -> &'a [String] {
        self.totals.stack()
    }

    /// One of the packets.
    pub fn example(&self) -> Option<&'a PacketRecord> {
        self.totals.example.as_deref()
    }

    /// `NOT_SPECIFIED@br_dev_queue_push_xmit`
    pub fn label(&self) -> String {
        let function = self.site.function.as_deref().unwrap_or("an unknown function");
        match self.site.reason.as_deref() {
            Some(reason) => format!("{reason} in {function}"),
            None => function.to_owned(),
        }
    }
}
