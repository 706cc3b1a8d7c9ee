//! A snapshot as a frame and as text.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Cell, Paragraph, Row, Table};

use super::{Replica, Snapshot, Totals};

/// Draws a snapshot; the first `skipped` replicas are scrolled out of sight.
pub(crate) fn frame(snapshot: &Snapshot, skipped: usize, frame: &mut Frame<'_>) {
    let fault = u16::from(snapshot.fault.is_some());
    let parts = [Constraint::Length(1), Constraint::Length(fault), Constraint::Min(3)];
    let [top, middle, rest] = Layout::vertical(parts).areas(frame.area());
    frame.render_widget(Line::from(headline(snapshot)).style(Modifier::BOLD), top);
    if let Some(fault) = &snapshot.fault {
        frame.render_widget(Paragraph::new(clean(fault, 400)).style(Color::Red), middle);
    }
    let heads = heads(snapshot);
    let rows: Vec<_> = snapshot.replicas.iter().map(cells).collect();
    let widths: Vec<_> = widths(&heads, &rows).into_iter().map(Constraint::Length).collect();
    let shown = snapshot.replicas.iter().zip(rows).skip(skipped).map(|(replica, cells)| {
        let style = match replica.state.as_str() {
            "serving" => Style::default(),
            "draining" | "returning" => Style::default().fg(Color::Yellow),
            _ => Style::default().fg(Color::Red),
        };
        Row::new(cells.into_iter().map(Cell::from)).style(style)
    });
    let head = Row::new(heads).style(Modifier::BOLD);
    let block = Block::bordered().title(" replicas ").title_bottom(" q: quit  ↑↓: scroll ");
    frame.render_widget(Table::new(shown, widths).header(head).block(block), rest);
}

/// A snapshot as text, a line for each replica.
pub(crate) fn table(snapshot: &Snapshot) -> String {
    let mut text = headline(snapshot);
    if let Some(fault) = &snapshot.fault {
        text.push('\n');
        text.push_str(&clean(fault, 400));
    }
    let heads = heads(snapshot);
    let rows: Vec<_> = snapshot.replicas.iter().map(cells).collect();
    let widths = widths(&heads, &rows);
    for row in std::iter::once(&heads).chain(&rows) {
        let cells = row.iter().zip(&widths);
        let line: Vec<_> = cells
            .map(|(cell, width)| format!("{cell:<width$}", width = usize::from(*width)))
            .collect();
        text.push('\n');
        text.push_str(line.join("  ").trim_end());
    }
    text.push('\n');
    text
}

fn headline(snapshot: &Snapshot) -> String {
    let Totals { unfinished, finished, failovers, retries_refused, imbalance } = snapshot.totals;
    let serving = snapshot.replicas.iter().filter(|replica| replica.state == "serving").count();
    format!(
        "{serving} of {} replicas serving, {unfinished} items unfinished, {finished} finished, \
         {failovers} failovers, {retries_refused} retries refused, imbalance {imbalance:.2}",
        snapshot.replicas.len()
    )
}

fn heads(snapshot: &Snapshot) -> Vec<String> {
    let fixed =
        ["replica", "state", "version", "queue s", "unfinished", "hits", "p50 ms", "p99 ms"];
    let reasons = snapshot.replicas.first().map(|replica| replica.placed.as_slice());
    let reasons = reasons.unwrap_or_default().iter().map(|(reason, _)| clean(reason, 16));
    fixed.into_iter().map(str::to_owned).chain(reasons).collect()
}

fn cells(replica: &Replica) -> Vec<String> {
    let hits = replica.hit_rate.map_or_else(none, |rate| format!("{:.0}%", 100.0 * rate));
    let millis = |of: fn((f64, f64)) -> f64| {
        replica.latency_ms.map_or_else(none, |latency| format!("{:.1}", of(latency)))
    };
    let mut cells = vec![
        clean(&replica.name, 48),
        clean(&replica.state, 16),
        clean(&replica.version, 24),
        format!("{:.2}", replica.queue_seconds),
        replica.unfinished.to_string(),
        hits,
        millis(|latency| latency.0),
        millis(|latency| latency.1),
    ];
    cells.extend(replica.placed.iter().map(|(_, count)| count.to_string()));
    cells
}

fn none() -> String {
    "-".to_owned()
}

fn widths(heads: &[String], rows: &[Vec<String>]) -> Vec<u16> {
    let width = |column: usize| {
        let cells = std::iter::once(heads).chain(rows.iter().map(Vec::as_slice));
        let widest = cells.filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        u16::try_from(widest.unwrap_or(0)).unwrap_or(u16::MAX)
    };
    (0..heads.len()).map(width).collect()
}

/// At most as many characters as given, without what would move the cursor or colour the terminal; a replica chooses its own version.
fn clean(text: &str, longest: usize) -> String {
    let shown = |char: char| if char.is_control() { '\u{fffd}' } else { char };
    text.chars().take(longest).map(shown).collect()
}

/// What tests draw.
#[cfg(test)]
pub(super) fn snapshot(replicas: usize) -> Snapshot {
    let placed = |count| vec![("prefix".to_owned(), count), ("hash".to_owned(), 2)];
    let replica = |index: usize| Replica {
        name: format!("sleuth-{index}"),
        state: if index == 1 { "lost" } else { "serving" }.to_owned(),
        version: "v7\u{1b}[2J".to_owned(),
        queue_seconds: 1.257,
        unfinished: 12,
        hit_rate: (index > 0).then_some(0.876),
        latency_ms: (index > 0).then_some((12.34, 345.6)),
        placed: placed(index as u64),
    };
    let totals = Totals {
        unfinished: 24,
        finished: 1000,
        failovers: 4,
        retries_refused: 3,
        imbalance: 1.25,
    };
    Snapshot { replicas: (0..replicas).map(replica).collect(), totals, fault: None }
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::*;

    fn drawn(snapshot: &Snapshot, skipped: usize, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|area| frame(snapshot, skipped, area)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn a_table_has_a_line_for_each_replica_and_no_escapes() {
        let mut snapshot = snapshot(2);
        snapshot.fault = Some("dns: NXDOMAIN".to_owned());
        let wanted = "\
1 of 2 replicas serving, 24 items unfinished, 1000 finished, 4 failovers, 3 retries refused, imbalance 1.25
dns: NXDOMAIN
replica   state    version  queue s  unfinished  hits  p50 ms  p99 ms  prefix  hash
sleuth-0  serving  v7\u{fffd}[2J   1.26     12          -     -       -       0       2
sleuth-1  lost     v7\u{fffd}[2J   1.26     12          88%   12.3    345.6   1       2
";
        assert_eq!(table(&snapshot), wanted);
        assert!(table(&Snapshot::default()).starts_with("0 of 0 replicas serving"));
    }

    #[test]
    fn a_frame_scrolls_and_fits_into_any_terminal() {
        let snapshot = snapshot(50);
        let top = drawn(&snapshot, 0, 100, 10);
        assert!(top.contains("49 of 50 replicas serving") && top.contains("sleuth-0 "), "{top}");
        assert!(top.contains("p99 ms") && top.contains("q: quit"), "{top}");
        let scrolled = drawn(&snapshot, 49, 100, 10);
        assert!(!scrolled.contains("sleuth-0 ") && scrolled.contains("sleuth-49"), "{scrolled}");
        for (width, height) in [(1, 1), (3, 2), (20, 3), (300, 100)] {
            drawn(&snapshot, 7, width, height);
        }
    }
}
