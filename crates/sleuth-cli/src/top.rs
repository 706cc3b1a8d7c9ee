//! The terminal view of `sleuth top`: a router's replicas and totals.
//!
//! [`frame`] draws a [`Snapshot`] and [`table`] writes it as text, both without any state;
//! [`watch`] shows one each second until somebody presses `q`.

mod draw;

use std::io::{self, IsTerminal as _, Write as _};
use std::pin::pin;
use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::Backend;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

pub(crate) use draw::{frame, table};

/// Time between two snapshots.
const REFRESH: Duration = Duration::from_secs(1);

/// How long a wait for a key lasts; also how long the thread that waits outlives the view.
const KEY_WAIT: Duration = Duration::from_millis(100);

/// What a router knows at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Snapshot {
    /// Shown in the order given.
    pub(crate) replicas: Vec<Replica>,
    /// Of the router as a whole.
    pub(crate) totals: Totals,
    /// What somebody should know first, if anything.
    pub(crate) fault: Option<String>,
}

/// One replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Replica {
    /// As discovery names it.
    pub(crate) name: String,
    /// One word: `serving`, `draining`, `lost` and the like.
    pub(crate) state: String,
    /// The version of what it serves.
    pub(crate) version: String,
    /// Predicted seconds until a new item would begin.
    pub(crate) queue_seconds: f64,
    /// Items placed there without a verdict yet.
    pub(crate) unfinished: u64,
    /// Share of items whose prefix was there, 0 to 1; `None` before the first one.
    pub(crate) hit_rate: Option<f64>,
    /// Median and 99th percentile of latency in milliseconds; `None` before the first item.
    pub(crate) latency_ms: Option<(f64, f64)>,
    /// Items placed, by reason, in the same order for every replica.
    pub(crate) placed: Vec<(String, u64)>,
}

/// Sums over all replicas, since the router's start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    /// Items without a verdict.
    pub(crate) unfinished: u64,
    /// Items with rewards.
    pub(crate) finished: u64,
    /// Items that were sent to another replica after one was lost.
    pub(crate) failovers: u64,
    /// Retries for which there was no budget.
    pub(crate) retries_refused: u64,
    /// The busiest replica's load over the mean; 1 is even.
    pub(crate) imbalance: f64,
}

/// What somebody at the terminal wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Quit,
    Down,
    Up,
    /// The terminal has another size.
    Draw,
}

/// What is shown.
#[derive(Default)]
struct View {
    snapshot: Snapshot,
    skipped: usize,
}

/// Shows a snapshot each second until `q`, Escape or Ctrl-C; where the output is no terminal,
/// writes one table and ends. A snapshot that cannot be fetched is told above the last one.
///
/// # Errors
/// The terminal cannot be used, or, where there is none, the snapshot cannot be fetched.
pub(crate) async fn watch(fetch: impl AsyncFnMut() -> Result<Snapshot, String>) -> io::Result<()> {
    let mut fetch = fetch;
    if !io::stdout().is_terminal() {
        let snapshot = fetch().await.map_err(io::Error::other)?;
        return io::stdout().write_all(table(&snapshot).as_bytes());
    }
    let mut terminal = ratatui::try_init()?;
    let ended = follow(&mut terminal, wishes(), fetch).await;
    ratatui::try_restore()?;
    ended
}

async fn follow<B: Backend<Error: Send + Sync + 'static>>(
    terminal: &mut Terminal<B>,
    mut wishes: mpsc::Receiver<Wish>,
    mut fetch: impl AsyncFnMut() -> Result<Snapshot, String>,
) -> io::Result<()> {
    let mut view = View::default();
    loop {
        let next = Instant::now() + REFRESH;
        let fetched = {
            let mut fetching = pin!(fetch());
            loop {
                tokio::select! {
                    fetched = &mut fetching => break fetched,
                    wish = wishes.recv() => if view.grant(wish) { return Ok(()) },
                }
                view.draw(terminal)?;
            }
        };
        view.take(fetched);
        view.draw(terminal)?;
        loop {
            tokio::select! {
                () = sleep_until(next) => break,
                wish = wishes.recv() => if view.grant(wish) { return Ok(()) },
            }
            view.draw(terminal)?;
        }
    }
}

/// Reads keys on a thread of its own, for reading blocks. It ends soon after the receiver.
fn wishes() -> mpsc::Receiver<Wish> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let read = match event::poll(KEY_WAIT) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            // Without a keyboard there is nobody who could end it.
            let wish = read.map_or(Some(Wish::Quit), |event| Wish::of(&event));
            if wish.is_some_and(|wish| sender.blocking_send(wish).is_err()) {
                return;
            }
        }
    });
    receiver
}

// === impl Wish ===

impl Wish {
    fn of(event: &Event) -> Option<Self> {
        let key = match event {
            Event::Resize(..) => return Some(Self::Draw),
            Event::Key(key) if key.kind != KeyEventKind::Release => key,
            _ => return None,
        };
        match key.code {
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Self::Quit),
            KeyCode::Char('q') | KeyCode::Esc => Some(Self::Quit),
            KeyCode::Char('j') | KeyCode::Down => Some(Self::Down),
            KeyCode::Char('k') | KeyCode::Up => Some(Self::Up),
            _ => None,
        }
    }
}

// === impl View ===

impl View {
    /// Whether that ends it.
    fn grant(&mut self, wish: Option<Wish>) -> bool {
        let last = self.snapshot.replicas.len().saturating_sub(1);
        match wish {
            None | Some(Wish::Quit) => return true,
            Some(Wish::Down) => self.skipped = (self.skipped + 1).min(last),
            Some(Wish::Up) => self.skipped = self.skipped.saturating_sub(1),
            Some(Wish::Draw) => {}
        }
        false
    }

    fn take(&mut self, fetched: Result<Snapshot, String>) {
        match fetched {
            Ok(snapshot) => self.snapshot = snapshot,
            Err(fault) => self.snapshot.fault = Some(fault),
        }
        self.skipped = self.skipped.min(self.snapshot.replicas.len().saturating_sub(1));
    }

    fn draw<B: Backend<Error: Send + Sync + 'static>>(
        &self,
        terminal: &mut Terminal<B>,
    ) -> io::Result<()> {
        let drawn = terminal.draw(|area| frame(&self.snapshot, self.skipped, area));
        drawn.map(drop).map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use ratatui::backend::TestBackend;
    use ratatui::crossterm::event::KeyEvent;

    use super::draw::snapshot;
    use super::*;

    #[test]
    fn keys_mean_what_the_frame_says() {
        let key = |code, modifiers| Wish::of(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Wish::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Wish::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(key(KeyCode::Down, KeyModifiers::NONE), Some(Wish::Down));
        assert_eq!(Wish::of(&Event::Resize(1, 1)), Some(Wish::Draw));
        let mut view = View::default();
        assert!(!view.grant(Some(Wish::Down)) && view.skipped == 0);
        view.take(Ok(snapshot(2)));
        assert!(!view.grant(Some(Wish::Down)) && !view.grant(Some(Wish::Down)));
        assert_eq!(view.skipped, 1);
        view.take(Ok(snapshot(1)));
        assert_eq!(view.skipped, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn it_refreshes_each_second_tells_faults_and_quits() {
        let mut terminal = Terminal::new(TestBackend::new(100, 8)).unwrap();
        let (wish, wishes) = mpsc::channel(1);
        let start = Instant::now();
        let mut fetched = 0;
        let fetch = async || {
            fetched += 1;
            match fetched {
                1 => Ok(snapshot(2)),
                2 | 3 => Err("the router is away".to_owned()),
                // Keys are heard though the router does not answer.
                _ => std::future::pending().await,
            }
        };
        let quit = async {
            tokio::time::sleep(Duration::from_millis(9500)).await;
            wish.send(Wish::Quit).await.unwrap();
        };
        let (ended, ()) = tokio::join!(follow(&mut terminal, wishes, fetch), quit);
        ended.unwrap();
        assert_eq!((fetched, start.elapsed()), (4, Duration::from_millis(9500)));
        let last = terminal.backend().to_string();
        assert!(last.contains("the router is away") && last.contains("sleuth-1"), "{last}");
    }
}
