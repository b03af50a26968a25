//! Where things are on the screen; drawing and the mouse ask the same functions.

use super::snapshot::Snapshot;
use super::state::Screen;
use ratatui::layout::{Constraint, Layout, Rect};

/// The smallest screen that is drawn.
pub const SMALLEST: (u16, u16) = (60, 16);
/// From this width on a list and its details, or a path and what is wrong on it, stand side by side.
const SIDE_BY_SIDE: u16 = 160;

/// Two things stand side by side on a screen of this width.
pub(super) fn is_wide(width: u16) -> bool {
    width >= SIDE_BY_SIDE
}

/// The parts of the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Areas {
    pub(super) header: Rect,
    pub(super) tabs: Rect,
    /// The list with its heading; empty on the path screen.
    pub(super) list: Rect,
    /// On the path screen of a wide terminal: the path, beside its text. Empty everywhere else.
    pub(super) aside: Rect,
    /// The text below it, or beside it; empty where there is none.
    pub(super) detail: Rect,
    pub(super) footer: Rect,
}

/// The parts of a screen of this size with so many guests; nothing when it is too small.
pub(super) fn areas((width, height): (u16, u16), screen: Screen, open: bool, guests: usize) -> Option<Areas> {
    if width < SMALLEST.0 || height < SMALLEST.1 {
        return None;
    }
    let whole = Rect::new(0, 0, width, height);
    let [header, tabs, body, footer] =
        Layout::vertical([Constraint::Length(2), Constraint::Length(1), Constraint::Fill(1), Constraint::Length(1)])
            .areas(whole);
    let beside = match screen {
        Screen::Flows | Screen::Faults | Screen::Path => true,
        Screen::Events => open,
        Screen::Guests | Screen::Timeline => false,
    };
    if is_wide(width) && beside {
        // Long enough for a path of five boxes; one column is for the line between.
        let text = (width * 9 / 20).min(100);
        let [left, _line, detail] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Length(1), Constraint::Length(text)]).areas(body);
        let (list, aside) =
            if screen == Screen::Path { (Rect { height: 0, ..left }, left) } else { (left, Rect::ZERO) };
        return Some(Areas { header, tabs, list, aside, detail, footer });
    }
    let text = match screen {
        // The list keeps eight rows or more; what few guests leave free goes to the detail, which has long commands to tell.
        Screen::Guests if body.height >= 18 => {
            let listed = u16::try_from(guests.max(1)).unwrap_or(u16::MAX).saturating_add(2);
            (body.height * 3 / 5).clamp(11, 14).max(body.height.saturating_sub(listed).min(20))
        }
        // A line across, four graphs and the incidents.
        Screen::Timeline if body.height >= 16 => (body.height / 2).max(9),
        Screen::Flows if body.height >= 34 => 14,
        Screen::Flows if body.height >= 18 => 7,
        Screen::Path => body.height,
        Screen::Faults => body.height - (body.height / 3).max(4),
        Screen::Events if open => body.height - (body.height / 3).max(4),
        // A line across, and the selected event in full.
        Screen::Events if body.height >= 18 => 4,
        Screen::Guests | Screen::Flows | Screen::Events | Screen::Timeline => 0,
    };
    let [list, detail] = Layout::vertical([Constraint::Fill(1), Constraint::Length(text)]).areas(body);
    Some(Areas { header, tabs, list, aside: Rect::ZERO, detail, footer })
}

/// The headings of a list.
pub(super) fn heading(list: Rect) -> Rect {
    Rect { height: list.height.min(1), ..list }
}

/// The rows of a list without its heading.
pub(super) fn rows(list: Rect) -> Rect {
    Rect { y: list.y.saturating_add(1), height: list.height.saturating_sub(1), ..list }
}

/// The names of the screens, as they stand on the screen, with their columns.
pub(super) fn tabs(snapshot: &Snapshot) -> Vec<(Screen, String, std::ops::Range<u16>)> {
    let mut column = 1;
    let faults =
        snapshot.faults.iter().filter(|fault| fault.severity >= crate::diagnose::report::Severity::Warning).count();
    Screen::ALL
        .into_iter()
        .map(|screen| {
            let count = match screen {
                Screen::Guests => Some(snapshot.guests.len()),
                Screen::Flows => Some(snapshot.flows.len()),
                Screen::Faults => Some(faults),
                Screen::Path | Screen::Events | Screen::Timeline => None,
            };
            let count = count.map(|count| format!(" {}", super::text::number(count as u64))).unwrap_or_default();
            let title = format!(" {} {}{count} ", screen.number(), screen.title());
            let width = title.chars().count() as u16;
            let columns = column..column + width;
            column += width + 1;
            (screen, title, columns)
        })
        .collect()
}
