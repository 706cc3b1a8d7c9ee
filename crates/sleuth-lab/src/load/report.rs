#[cfg(test)]
pub(super) mod tests;

use serde::Serialize;

use super::{Counts, DriveSettings, Outcome, Percentiles, PlanSettings, Point};

/// What a run was told to do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Settings {
    /// What was driven, such as its address.
    pub target: String,
    /// What arrived.
    pub plan: PlanSettings,
    /// How it was sent.
    pub drive: DriveSettings,
}

/// What came of a run, to be written as JSON, printed and drawn.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// What the run was told to do.
    pub settings: Settings,
    /// The whole run: warm-up, plan and the wait for stragglers.
    pub seconds: f64,
    /// From the warm-up's end to the plan's, or to a stop; rates are over these.
    pub measured_seconds: f64,
    /// Items per second that came due.
    pub offered_per_second: f64,
    /// Valid verdicts per second that came within `measured_seconds`; a warm-up that is shorter than
    /// the latency makes it read low.
    pub achieved_per_second: f64,
    /// From planned arrival to the verdict of valid attempts, after the warm-up as all that follow.
    pub admitted: Option<Percentiles>,
    /// From planned arrival, or for retries from their sending, to the verdict of refused attempts.
    pub refused: Option<Percentiles>,
    /// Waited on the server, as it says.
    pub queue: Option<Percentiles>,
    /// Computed on the server, as it says.
    pub compute: Option<Percentiles>,
    /// From sending to verdict, without the server's queue and compute: what client, network and
    /// service add.
    pub beside: Option<Percentiles>,
    /// From planned arrival to sending: what the generator itself added.
    pub lateness: Option<Percentiles>,
    /// Every item's account, those of the warm-up too.
    pub counts: Counts,
    /// Whether the server kept its promises.
    pub passes: bool,
    /// The broken ones.
    pub problems: Vec<String>,
    /// What happened in each second; at most 3600 points.
    pub series: Vec<Point>,
}

// === impl Report ===

impl Report {
    /// Of a run against `target`.
    pub fn new(target: String, outcome: Outcome) -> Self {
        let Outcome { plan, drive, elapsed, span, counts, measured } = outcome;
        let measured_seconds = span.saturating_sub(plan.warm_up).as_secs_f64();
        let per_second = |count: u64| {
            if measured_seconds > 0.0 { count as f64 / measured_seconds } else { 0.0 }
        };
        let verdict = counts.verdict();
        Self {
            settings: Settings { target, plan, drive },
            seconds: elapsed.as_secs_f64(),
            measured_seconds,
            offered_per_second: per_second(measured.due),
            achieved_per_second: per_second(measured.valid),
            admitted: measured.admitted,
            refused: measured.refused,
            queue: measured.queue,
            compute: measured.compute,
            beside: measured.beside,
            lateness: measured.lateness,
            passes: verdict.passes(),
            problems: verdict.problems().to_vec(),
            counts,
            series: measured.series,
        }
    }

    /// Rows of a name and a value for a terminal.
    pub fn table(&self) -> Vec<(String, String)> {
        let mut rows = self.load_rows();
        rows.extend(self.latency_rows());
        rows.extend(self.count_rows());
        rows.extend(self.text_rows());
        let rows = rows.into_iter().map(|(name, value)| (one_line(&name), one_line(&value)));
        rows.collect()
    }

    fn load_rows(&self) -> Vec<(String, String)> {
        let rate = |rate: f64| format!("{rate:.1} items/s");
        vec![
            row("target", self.settings.target.clone()),
            row("seconds", format!("{:.1}", self.seconds)),
            row("offered", rate(self.offered_per_second)),
            row("achieved", rate(self.achieved_per_second)),
        ]
    }

    fn latency_rows(&self) -> Vec<(String, String)> {
        let kinds = [
            ("latency, admitted", &self.admitted),
            ("latency, refused", &self.refused),
            ("server queue", &self.queue),
            ("server compute", &self.compute),
            ("beside those two", &self.beside),
            ("generator lateness", &self.lateness),
        ];
        let told = kinds.into_iter().filter_map(|(name, times)| Some((name, times.as_ref()?)));
        told.map(|(name, times)| row(name, percentiles(times))).collect()
    }

    fn count_rows(&self) -> Vec<(String, String)> {
        let counts = &self.counts;
        let always = [
            ("items sent", counts.sent),
            ("items not sent", counts.not_sent),
            ("attempts", counts.attempts),
            ("valid", counts.valid),
            ("refused", counts.refused),
            ("lost", counts.lost),
            ("unanswered", counts.unanswered),
            ("answered twice", counts.twice_answered),
            ("groups", counts.groups),
            ("mixed groups", counts.mixed_groups),
            ("changed answers", counts.changed_answers),
            ("zero rewards", counts.zeros),
            ("not finite", counts.not_finite),
            ("duplicates joined", counts.duplicates_joined),
        ];
        let unusual = [
            ("valid without rewards", counts.without_rewards),
            ("not batch invariant", counts.not_batch_invariant),
        ];
        let unusual = unusual.into_iter().filter(|(_, count)| *count > 0);
        always
            .into_iter()
            .chain(unusual)
            .map(|(name, count)| row(name, count.to_string()))
            .collect()
    }

    fn text_rows(&self) -> Vec<(String, String)> {
        let counts = &self.counts;
        let refusals = counts.refusals.iter().flat_map(|(class, reasons)| {
            let named = move |(reason, count): (&String, &u64)| {
                row(&format!("refused: {class}, {reason}"), count.to_string())
            };
            reasons.iter().map(named)
        });
        let counted = |what: &'static str| {
            move |(text, count): (&String, &u64)| row(&format!("{what}: {text}"), count.to_string())
        };
        let losses = counts.losses.iter().map(counted("lost"));
        let versions = counts.versions.iter().map(counted("version"));
        let problems = self.problems.iter().map(|problem| row("problem", problem.clone()));
        let verdict = row("verdict", if self.passes { "passes" } else { "fails" }.to_owned());
        refusals.chain(losses).chain(versions).chain(problems).chain([verdict]).collect()
    }
}

fn row(name: &str, value: String) -> (String, String) {
    (name.to_owned(), value)
}

fn percentiles(times: &Percentiles) -> String {
    let Percentiles { p50_ms, p90_ms, p99_ms, p999_ms, max_ms, .. } = times;
    format!(
        "p50 {p50_ms:.1} ms, p90 {p90_ms:.1} ms, p99 {p99_ms:.1} ms, p99.9 {p999_ms:.1} ms, \
         max {max_ms:.1} ms"
    )
}

/// Without control characters: some texts are the server's, and a terminal obeys those.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
