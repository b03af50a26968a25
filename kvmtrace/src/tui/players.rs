//! Recordings of several traces on one clock: all of them play, stand still and jump together, and one is on the screen.

use super::player::Player;
use super::snapshot::{Hosts, Snapshot};
use super::update::Command;
use crate::event::{Event, Timestamp};
use crate::selection::Selection;
use std::time::Duration;

/// The recordings, and which of them is shown.
#[derive(Debug)]
pub struct Players {
    players: Vec<Player>,
    shown: usize,
}

impl Players {
    /// Stands where the first of them begins. Their clocks are believed as they are.
    pub fn new(recordings: Vec<(Vec<Event>, Selection)>) -> Self {
        let mut players: Vec<Player> =
            recordings.into_iter().map(|(events, selection)| Player::new(events, selection)).collect();
        if players.is_empty() {
            players.push(Player::new(Vec::new(), Selection::default()));
        }
        let spans = players.iter().filter_map(Player::span);
        let span = spans.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        if let Some((start, end)) = span {
            for player in &mut players {
                player.stretch(start, end);
            }
        }
        Self { players, shown: 0 }
    }

    /// Time moves by itself.
    pub fn playing(&self) -> bool {
        self.players.iter().any(Player::playing)
    }

    /// Lets so much real time pass.
    pub fn advance(&mut self, elapsed: Duration) {
        for player in &mut self.players {
            player.advance(elapsed);
        }
    }

    /// Does what the operator wants; tells in words when that is not possible.
    pub fn command(&mut self, command: Command) -> Option<&'static str> {
        match command {
            Command::Host(_) if self.players.len() == 1 => Some("this is the recording of one host"),
            Command::Host(step) => {
                let count = self.players.len();
                self.shown = (self.shown + count).saturating_add_signed(isize::from(step)) % count;
                None
            }
            Command::Fault(step) => self.fault(step > 0),
            Command::Record
            | Command::Reset
            | Command::Pause
            | Command::Speed(_)
            | Command::Seek(_)
            | Command::SeekTo(_) => {
                for player in &mut self.players {
                    player.command(command);
                }
                None
            }
        }
    }

    /// To the next fault of any of them, or the one before; the host that has it is shown.
    fn fault(&mut self, forth: bool) -> Option<&'static str> {
        let found =
            self.players.iter_mut().enumerate().filter_map(|(index, player)| Some((player.fault(forth)?, index)));
        let nearest = if forth { found.min() } else { found.max() };
        let Some((time, index)) = nearest else {
            return Some(if forth { "no further fault in this recording" } else { "no fault before this" });
        };
        self.shown = index;
        for player in &mut self.players {
            player.stop_at(Timestamp(time));
        }
        None
    }

    /// What the screen shows now.
    pub fn snapshot(&mut self) -> Snapshot {
        let hosts = Hosts { shown: self.shown, count: self.players.len() };
        let mut snapshot = self.players[self.shown].snapshot();
        if let Some(replay) = &mut snapshot.status.replay {
            replay.hosts = hosts;
        }
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;
    use crate::event::{EventKind, Loss};

    const SECOND: u64 = 1_000_000_000;

    /// A trace from one second to another, with a loss each second.
    fn recording(from: u64, to: u64) -> (Vec<Event>, Selection) {
        let mut events = vec![fixture::started(Timestamp(from * SECOND))];
        events.extend((from + 1..=to).map(|second| Event {
            time: Timestamp(second * SECOND),
            kind: EventKind::Loss(Loss { ring_events: second, ..Loss::default() }),
        }));
        (events, Selection::default())
    }

    /// Which host is shown, the second, and how many losses it has told.
    fn at(players: &mut Players) -> (usize, u64, usize) {
        let snapshot = players.snapshot();
        let shown = snapshot.status.replay.as_ref().map_or(0, |replay| replay.hosts.shown);
        (shown, snapshot.now.0 / SECOND, snapshot.events.len().saturating_sub(1))
    }

    #[test]
    fn hosts_play_on_one_clock() {
        let mut players = Players::new(vec![recording(100, 110), recording(105, 130)]);
        players.advance(Duration::from_secs(8));
        assert_eq!(at(&mut players), (0, 108, 8));
        assert_eq!(players.command(Command::Host(1)), None);
        assert_eq!(at(&mut players), (1, 108, 3));
        players.command(Command::SeekTo(Timestamp(125 * SECOND)));
        assert_eq!(at(&mut players), (1, 125, 20));
        players.command(Command::Host(1));
        assert_eq!(at(&mut players), (0, 125, 10), "what has ended stays as it was");
        players.advance(Duration::from_mins(1));
        assert_eq!((at(&mut players).1, players.playing()), (130, false));
        players.command(Command::Seek(-28));
        players.command(Command::Host(-1));
        assert_eq!(at(&mut players), (1, 102, 0), "it has not begun");
    }

    #[test]
    fn one_host_is_the_only_one() {
        let mut players = Players::new(vec![recording(100, 110)]);
        assert!(players.command(Command::Host(1)).is_some());
        assert_eq!(players.command(Command::Fault(1)), Some("no further fault in this recording"));
        assert_eq!(Players::new(Vec::new()).snapshot().now, Timestamp(0));
    }
}
