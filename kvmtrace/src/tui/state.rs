//! What the screen is about: which screen, which row, which filter. It knows nothing of a terminal.

use super::errand::Probed;
use super::group::Grouping;
use super::layout::{self, Areas};
use super::listing::{Group, Listing};
use super::snapshot::Snapshot;
use super::view::{self, FlowColumn, GuestColumn, Sort};
use std::collections::BTreeSet;
use std::sync::Arc;

/// The screens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// Each guest with its path and rates.
    Guests,
    /// Each flow with its verdict.
    Flows,
    /// One flow's or guest's way as a picture.
    Path,
    /// What is wrong and how to mend it.
    Faults,
    /// What happened.
    Events,
    /// Each guest's past.
    Timeline,
}

/// How much time a column of the time line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zoom {
    /// Ten seconds.
    Seconds,
    /// A minute.
    Minute,
    /// Five minutes.
    Minutes,
}

impl Zoom {
    /// The next one.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Seconds => Self::Minute,
            Self::Minute => Self::Minutes,
            Self::Minutes => Self::Seconds,
        }
    }

    /// Buckets of ten seconds.
    pub(super) fn buckets(self) -> u64 {
        match self {
            Self::Seconds => 1,
            Self::Minute => 6,
            Self::Minutes => 30,
        }
    }

    /// In words.
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Seconds => "10 s",
            Self::Minute => "1 min",
            Self::Minutes => "5 min",
        }
    }
}

impl Screen {
    /// In the order of their numbers.
    pub(super) const ALL: [Self; 6] =
        [Self::Guests, Self::Flows, Self::Path, Self::Faults, Self::Events, Self::Timeline];

    /// As in the tabs.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Guests => "Guests",
            Self::Flows => "Flows",
            Self::Path => "Path",
            Self::Faults => "Incidents",
            Self::Events => "Events",
            Self::Timeline => "Time",
        }
    }

    /// Its key.
    pub(super) fn number(self) -> usize {
        self as usize + 1
    }
}

/// The snapshot's number, filter, orders, the guest, the grouping and how often something was folded.
type Made = (u64, String, Sort<FlowColumn>, Sort<GuestColumn>, Option<String>, Grouping, u64);

/// Groups that are remembered as unfolded.
const UNFOLDED: usize = 10_000;

/// A list with a cursor.
#[derive(Clone, Debug, Default)]
pub struct List {
    /// Index of the row under the cursor.
    pub selected: usize,
    /// Index of the first row that is seen.
    pub offset: usize,
    /// What was typed to filter.
    pub filter: String,
    /// The cursor stays on its item (events: on the newest) when the order changes.
    pub follow: bool,
    /// Rows, as indices into the snapshot; among flows some are groups.
    pub listing: Listing,
    anchor: Option<u64>,
    /// What `rows` were made from.
    made: Option<Made>,
}

impl List {
    /// The item under the cursor, as an index into the snapshot.
    pub(super) fn current(&self) -> Option<usize> {
        self.listing.rows.get(self.selected).map(|row| *row as usize)
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.listing.rows.len()
    }

    /// No row.
    pub fn is_empty(&self) -> bool {
        self.listing.rows.is_empty()
    }

    /// The group under the cursor, if it is on one.
    pub(super) fn group(&self) -> Option<&Group> {
        self.listing.group(self.selected)
    }

    /// Brings the cursor into the list and onto the screen.
    fn settle(&mut self, height: usize) {
        self.selected = self.selected.min(self.len().saturating_sub(1));
        let height = height.max(1);
        let last = self.len().saturating_sub(height);
        self.offset = self.offset.clamp(self.selected.saturating_sub(height - 1), self.selected).min(last);
    }
}

/// What the path screen shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Focus {
    /// The guest under the cursor of the guest list.
    Guest,
    /// The flow under the cursor of the flow list.
    Flow,
    /// The fault under the cursor of the fault list.
    Fault,
}

/// What is being typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prompt {
    /// A filter.
    Filter,
    /// A time of the recording.
    Time,
    /// In which form to save.
    Save,
    /// Where to probe, and how.
    Probe,
}

/// Everything that keys and the mouse change.
#[derive(Debug)]
pub struct State {
    /// Columns and rows of the terminal.
    pub size: (u16, u16),
    /// What is shown.
    pub screen: Screen,
    /// Where one came from.
    pub(super) trail: Vec<Screen>,
    /// The keys are shown.
    pub help: bool,
    /// The detail of an event is open.
    pub open: bool,
    /// What is being typed, if anything.
    pub prompt: Option<Prompt>,
    /// A time, half typed.
    pub typed_time: String,
    /// A probe, half typed.
    pub typed_probe: String,
    /// Whose probe is typed.
    pub(super) probed: Option<Probed>,
    /// The device whose newest probe is to be shown once it is seen.
    pub(super) awaited: Option<String>,
    /// What the path screen shows.
    pub focus: Focus,
    /// First line of the text that is seen.
    pub scroll: u16,
    /// Which fix is chosen.
    pub fix: usize,
    /// A word to the operator, until the next key.
    pub message: Option<String>,
    /// Order of the flows.
    pub flow_sort: Sort<FlowColumn>,
    /// Order of the guests.
    pub guest_sort: Sort<GuestColumn>,
    /// The guest whose flows alone are shown.
    pub of_guest: Option<String>,
    /// Time line: columns that it is scrolled back.
    pub back: u32,
    /// Time line: how much time a column is.
    pub zoom: Zoom,
    /// What flows are grouped by.
    pub grouping: Grouping,
    /// Ids of the groups whose flows are shown.
    unfolded: BTreeSet<u64>,
    /// Rises when one of them changes.
    folds: u64,
    /// Guests.
    pub guests: List,
    /// Flows.
    pub flows: List,
    /// Faults.
    pub faults: List,
    /// Events.
    pub events: List,
    /// The snapshot that is shown.
    shown: Arc<Snapshot>,
    /// The newest, while the screen is frozen.
    newest: Option<Arc<Snapshot>>,
    /// Rises with each snapshot that is shown.
    generation: u64,
}

impl State {
    /// The first screen.
    pub fn new(snapshot: Arc<Snapshot>, size: (u16, u16)) -> Self {
        let list = || List { follow: true, ..List::default() };
        let mut state = Self {
            size,
            screen: Screen::Guests,
            trail: Vec::new(),
            help: false,
            open: false,
            prompt: None,
            typed_time: String::new(),
            typed_probe: String::new(),
            probed: None,
            awaited: None,
            focus: Focus::Guest,
            scroll: 0,
            fix: 0,
            message: None,
            flow_sort: Sort { column: FlowColumn::Worst, reversed: false },
            guest_sort: Sort { column: GuestColumn::Worst, reversed: false },
            of_guest: None,
            back: 0,
            zoom: Zoom::Seconds,
            grouping: Grouping::Alike,
            unfolded: BTreeSet::new(),
            folds: 0,
            guests: list(),
            flows: list(),
            faults: list(),
            events: list(),
            shown: snapshot,
            newest: None,
            generation: 0,
        };
        state.refresh();
        state
    }

    /// The snapshot to draw.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.shown
    }

    /// The screen stands still while the trace goes on.
    pub fn frozen(&self) -> bool {
        self.newest.is_some()
    }

    /// It is a recording that is shown.
    pub fn replaying(&self) -> bool {
        self.shown.status.replay.is_some()
    }

    /// Takes a new snapshot in; tells whether the screen changes.
    pub fn show(&mut self, snapshot: Arc<Snapshot>) -> bool {
        if self.newest.is_some() {
            self.newest = Some(snapshot);
            return false;
        }
        let before = std::mem::replace(&mut self.shown, snapshot);
        // The name of the file has no room beside the names of the screens everywhere.
        match (&before.status.recording, &self.shown.status.recording) {
            (None, Some(file)) => self.message = Some(format!("recording to {file}")),
            (Some(file), None) => self.message = Some(format!("recorded: {file}")),
            _ => {}
        }
        self.generation += 1;
        self.refresh();
        true
    }

    /// Freezes the screen or lets it go on.
    pub(super) fn toggle_freeze(&mut self) {
        match self.newest.take() {
            Some(newest) => {
                self.shown = newest;
                self.generation += 1;
                self.refresh();
            }
            None => self.newest = Some(Arc::clone(&self.shown)),
        }
    }

    /// The list of a screen.
    pub(super) fn list(&self, screen: Screen) -> &List {
        match screen {
            Screen::Guests | Screen::Timeline => &self.guests,
            Screen::Flows => &self.flows,
            Screen::Faults => &self.faults,
            Screen::Events => &self.events,
            Screen::Path => match self.focus {
                Focus::Guest => &self.guests,
                Focus::Flow => &self.flows,
                Focus::Fault => &self.faults,
            },
        }
    }

    /// The list that keys move in now.
    pub(super) fn list_mut(&mut self) -> &mut List {
        match (self.screen, self.focus) {
            (Screen::Guests | Screen::Timeline, _) | (Screen::Path, Focus::Guest) => &mut self.guests,
            (Screen::Flows, _) | (Screen::Path, Focus::Flow) => &mut self.flows,
            (Screen::Faults, _) | (Screen::Path, Focus::Fault) => &mut self.faults,
            (Screen::Events, _) => &mut self.events,
        }
    }

    /// Rows that a list shows.
    pub(super) fn list_height(&self) -> usize {
        let screen = match (self.screen, self.focus) {
            (Screen::Path, Focus::Guest) => Screen::Guests,
            (Screen::Path, Focus::Flow) => Screen::Flows,
            (Screen::Path, Focus::Fault) => Screen::Faults,
            (screen, _) => screen,
        };
        let guests = self.shown.guests.len();
        layout::areas(self.size, screen, self.open, guests)
            .map_or(1, |areas| usize::from(layout::rows(areas.list).height))
    }

    /// The parts of the screen.
    pub(super) fn areas(&self, size: (u16, u16)) -> Option<Areas> {
        layout::areas(size, self.screen, self.open, self.shown.guests.len())
    }

    /// Brings the list on the screen up to date with the snapshot, the filter and the order.
    pub(super) fn refresh(&mut self) {
        let snapshot = Arc::clone(&self.shown);
        let (screen, focus) = (self.screen, self.focus);
        let height = self.list_height();
        let made = Some((
            self.generation,
            self.list(screen).filter.clone(),
            self.flow_sort,
            self.guest_sort,
            self.of_guest.clone(),
            self.grouping,
            self.folds,
        ));
        if self.list(screen).made == made {
            self.list_mut().settle(height);
            return;
        }
        let plain = |rows: Vec<u32>| Listing { rows, ..Listing::default() };
        let listing = match (screen, focus) {
            (Screen::Guests | Screen::Timeline, _) | (Screen::Path, Focus::Guest) => {
                plain(view::guests(&snapshot, &self.guests.filter, self.guest_sort))
            }
            (Screen::Flows, _) | (Screen::Path, Focus::Flow) => {
                let flows = view::flows(&snapshot, &self.flows.filter, self.flow_sort, self.of_guest.as_deref());
                Listing::of(&snapshot, flows, self.grouping, self.flow_sort, &self.unfolded)
            }
            (Screen::Faults, _) | (Screen::Path, Focus::Fault) => plain(view::faults(&snapshot, &self.faults.filter)),
            (Screen::Events, _) => plain(view::events(&snapshot, &self.events.filter)),
        };
        let events = screen == Screen::Events;
        let id = |row: usize| self.row_id(&snapshot, &listing, row);
        let rows = &listing.rows;
        let list = self.list(screen);
        let found = match (list.follow, list.anchor) {
            (true, _) if events => Some(rows.len().saturating_sub(1)),
            // Events stand in the order of their numbers: one that is forgotten or filtered out leaves its place to the next.
            (false, Some(anchor)) if events => {
                Some(rows.partition_point(|row| self.item_id(&snapshot, *row as usize) < anchor))
            }
            (true, Some(anchor)) => (0..rows.len()).find(|row| id(*row) == anchor),
            (true, None) | (false, _) => None,
        };
        let list = self.list_mut();
        list.listing = listing;
        list.made = made;
        if let Some(found) = found {
            // The row keeps its place on the screen while others come and go above it.
            list.offset = (list.offset + found).saturating_sub(list.selected);
            list.selected = found;
        }
        list.settle(height);
    }

    /// Brings the list up to date even if nothing seems to have changed.
    pub(super) fn renew(&mut self) {
        self.list_mut().made = None;
        self.refresh();
    }

    /// Remembers what is under the cursor, after it was moved.
    pub(super) fn hold(&mut self) {
        let height = self.list_height();
        self.list_mut().settle(height);
        let list = self.list(self.screen);
        let anchor = (list.selected < list.len()).then(|| self.row_id(&self.shown, &list.listing, list.selected));
        self.list_mut().anchor = anchor;
    }

    /// Shows or hides the flows of the group under the cursor; tells whether there is one.
    pub(super) fn fold(&mut self, folded: Option<bool>) -> bool {
        if self.screen != Screen::Flows {
            return false;
        }
        let Some(group) = self.flows.group().copied() else { return false };
        let fold = folded.unwrap_or(!group.folded);
        if fold {
            self.unfolded.remove(&group.id);
        } else if self.unfolded.len() < UNFOLDED {
            self.unfolded.insert(group.id);
        }
        self.folds += 1;
        self.refresh();
        true
    }

    /// Puts the cursor on a flow, wherever it is in the list.
    pub(super) fn reveal(&mut self, index: usize) {
        let snapshot = Arc::clone(&self.shown);
        let Some(facts) = snapshot.flows.get(index) else { return };
        for grouping in [self.grouping, Grouping::Alike] {
            self.unfolded.extend(facts.groups.of(grouping));
        }
        self.folds += 1;
        self.of_guest = None;
        self.flows.filter.clear();
        (self.flows.anchor, self.flows.follow) = (Some(facts.id), true);
    }

    /// Shows or hides the flows of all groups.
    pub(super) fn fold_all(&mut self) {
        let folded: Vec<u64> =
            self.flows.listing.groups.iter().filter(|group| group.folded).map(|group| group.id).collect();
        if folded.is_empty() {
            self.unfolded.clear();
        } else {
            let room = UNFOLDED.saturating_sub(self.unfolded.len());
            self.unfolded.extend(folded.into_iter().take(room));
        }
        self.folds += 1;
        self.refresh();
    }

    /// What a row shows has the same id in every snapshot.
    fn row_id(&self, snapshot: &Snapshot, listing: &Listing, row: usize) -> u64 {
        match listing.group(row) {
            Some(group) => group.id,
            None => self.item_id(snapshot, listing.rows[row] as usize),
        }
    }

    fn item_id(&self, snapshot: &Snapshot, index: usize) -> u64 {
        match (self.screen, self.focus) {
            (Screen::Guests | Screen::Timeline, _) | (Screen::Path, Focus::Guest) => {
                use std::hash::{DefaultHasher, Hash as _, Hasher as _};
                let mut hasher = DefaultHasher::new();
                snapshot.report.guests[snapshot.guests[index].index].name.hash(&mut hasher);
                hasher.finish()
            }
            (Screen::Flows, _) | (Screen::Path, Focus::Flow) => snapshot.flows[index].id,
            (Screen::Faults, _) | (Screen::Path, Focus::Fault) => snapshot.faults[index].id,
            (Screen::Events, _) => snapshot.events[index].serial,
        }
    }
}
