#[cfg(test)]
mod tests;

use std::iter::Peekable;
use std::num::NonZeroU64;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::task::{JoinError, JoinSet, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::measure::Measures;
use super::{
    Answer, Arrival, Attempt, Counts, Ledger, Measured, Plan, PlanSettings, Stray, Target,
};

/// Items that are sent before the tasks of earlier ones get a turn. A turn of tokio's
/// single-threaded scheduler runs 61 tasks; with twice as many items they would fall ever further
/// behind.
const BURST: usize = 30;
/// When a refused item comes again where the server does not say.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Whether refused items come again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Retries {
    /// Retries of an item, at most [`Attempt::MOST_RETRIES`]; 0 sends each once.
    pub max: u32,
}

/// How a plan is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct DriveSettings {
    /// Whether refused items come again.
    pub retries: Retries,
    /// Attempts without a verdict, and retries that wait, at most; what would pass it is not sent.
    pub max_unfinished: usize,
    /// How long to wait for verdicts after the last arrival.
    #[serde(rename = "grace_seconds", serialize_with = "super::seconds")]
    pub grace: Duration,
    /// Sends every so many-th item twice at once, to see that both get the same rewards.
    pub copy_every: Option<NonZeroU64>,
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What was planned.
    pub plan: PlanSettings,
    /// How it was carried out.
    pub drive: DriveSettings,
    /// To the last verdict, or to the end of the grace.
    pub elapsed: Duration,
    /// From the start to where arrivals ended: as planned, or earlier where the run was stopped.
    pub span: Duration,
    /// Every item's account.
    pub counts: Counts,
    /// Times.
    pub measured: Measured,
}

/// Sends every item of the plan at its moment, whether or not earlier ones have been answered, and
/// waits for the verdicts.
///
/// `stop` ends the arrivals early; it may be [`std::future::pending`]. Needs a tokio runtime with
/// time. Its timers are exact to a millisecond, and so are the moments of sending; how late they
/// were is measured. A target that panics leaves its item unanswered.
pub async fn drive<T: Target>(
    plan: Plan,
    target: Arc<T>,
    settings: DriveSettings,
    stop: impl Future<Output = ()>,
) -> Outcome {
    let planned = *plan.settings();
    let mut driver = Driver::new(&planned, target, settings);
    let stopped = driver.send_all(plan, stop).await;
    let span = stopped.unwrap_or_else(|| planned.span());
    driver.measures.end(span);
    driver.wait().await;
    driver.finish(planned, span)
}

/// What came of an attempt; times since the start.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) arrival: Arrival,
    pub(super) attempt: Attempt,
    pub(super) sent: Duration,
    pub(super) answered: Duration,
    pub(super) answer: Answer,
}

/// What a task ends with.
#[derive(Debug)]
enum Event {
    Answered(Record),
    /// A retry's moment has come.
    Again(Arrival, Attempt),
}

/// Owns all that is counted, so that nothing is locked: the tasks hand their records over as they
/// end.
struct Driver<T> {
    start: Instant,
    target: Arc<T>,
    settings: DriveSettings,
    tasks: JoinSet<Event>,
    ledger: Ledger,
    measures: Measures,
}

// === impl DriveSettings ===

impl Default for DriveSettings {
    /// No retries or copies, 100,000 unfinished attempts, 30 s of grace.
    fn default() -> Self {
        Self {
            retries: Retries::default(),
            max_unfinished: 100_000,
            grace: Duration::from_secs(30),
            copy_every: None,
        }
    }
}

// === impl Driver ===

impl<T: Target> Driver<T> {
    fn new(plan: &PlanSettings, target: Arc<T>, settings: DriveSettings) -> Self {
        Self {
            start: Instant::now(),
            target,
            settings,
            tasks: JoinSet::new(),
            ledger: Ledger::new(plan.group_size),
            measures: Measures::new(plan.warm_up, plan.span()),
        }
    }

    /// Sends the plan; the moment of a stop, if there was one.
    async fn send_all(&mut self, plan: Plan, stop: impl Future<Output = ()>) -> Option<Duration> {
        let mut stop = pin!(stop);
        let mut plan = plan.peekable();
        while let Some(&Arrival { at, .. }) = plan.peek() {
            // A moment beyond what a clock can tell never comes.
            let due = self.start.checked_add(at)?;
            if Instant::now() < due {
                tokio::select! {
                    biased;
                    () = &mut stop => return Some(self.start.elapsed()),
                    () = sleep_until(due) => {}
                    Some(done) = self.tasks.join_next() => self.take(done),
                }
            } else {
                self.send_due(&mut plan);
                // Also lets the tasks run where this one never has to wait.
                tokio::select! {
                    biased;
                    () = &mut stop => return Some(self.start.elapsed()),
                    () = yield_now() => {}
                }
            }
            self.take_ready();
        }
        None
    }

    /// Sends what is due, but no more than a burst.
    fn send_due(&mut self, plan: &mut Peekable<Plan>) {
        for _ in 0..BURST {
            let now = self.start.elapsed();
            let Some(arrival) = plan.next_if(|next| next.at <= now) else { return };
            self.arrive(arrival, now);
        }
    }

    fn arrive(&mut self, arrival: Arrival, now: Duration) {
        self.measures.due(arrival.at, now);
        let twice = self.settings.copy_every.is_some_and(|every| arrival.item % every == 0);
        let copies = 1 + u8::from(twice);
        if self.tasks.len() + usize::from(copies) > self.settings.max_unfinished {
            self.ledger.not_sent(&arrival);
            return;
        }
        for copy in 0..copies {
            self.send(arrival, Attempt { copy, number: 0 });
        }
    }

    fn send(&mut self, arrival: Arrival, attempt: Attempt) {
        let sent = self.start.elapsed();
        self.ledger.sent(&arrival, attempt);
        self.measures.sent(sent);
        let (target, start) = (Arc::clone(&self.target), self.start);
        self.tasks.spawn(async move {
            let answer = target.score(arrival).await;
            let answered = start.elapsed();
            Event::Answered(Record { arrival, attempt, sent, answered, answer })
        });
    }

    fn take(&mut self, done: Result<Event, JoinError>) {
        match done {
            Ok(Event::Answered(record)) => self.answered(&record),
            Ok(Event::Again(arrival, attempt)) => self.send(arrival, attempt),
            // The target panicked. Its item stays in the ledger as one without a verdict.
            Err(_) => {}
        }
    }

    fn answered(&mut self, record: &Record) {
        let Record { arrival, attempt, ref answer, .. } = *record;
        let retry_after = self.retry_after(attempt, answer);
        self.measures.answered(record);
        self.ledger.answered(&arrival, attempt, answer, retry_after.is_some());
        if let Some(after) = retry_after {
            let attempt = Attempt { number: attempt.number + 1, ..attempt };
            self.tasks.spawn(async move {
                sleep(after).await;
                Event::Again(arrival, attempt)
            });
        }
    }

    /// When the attempt's item comes again, if it does.
    fn retry_after(&self, attempt: Attempt, answer: &Answer) -> Option<Duration> {
        let most = self.settings.retries.max.min(Attempt::MOST_RETRIES);
        match answer {
            Answer::Refused { retryable: true, retry_after, .. } if attempt.number < most => {
                Some(retry_after.unwrap_or(RETRY_AFTER))
            }
            _ => None,
        }
    }

    fn take_ready(&mut self) {
        while let Some(done) = self.tasks.try_join_next() {
            self.take(done);
        }
    }

    /// Takes the stragglers' verdicts, and lets go of those that have none by the end of the grace.
    async fn wait(&mut self) {
        let grace = self.settings.grace;
        let all = async {
            while let Some(done) = self.tasks.join_next().await {
                self.take(done);
            }
        };
        // What has no verdict by then is seen in the ledger.
        let _ = timeout(grace, all).await;
        self.take_ready();
        self.tasks.abort_all();
    }

    fn finish(mut self, plan: PlanSettings, span: Duration) -> Outcome {
        let elapsed = self.start.elapsed();
        for Stray { arrival, answer } in self.target.strays() {
            self.ledger.answered(&arrival, Attempt::FIRST, &answer, false);
        }
        let measured = self.measures.finish();
        let (drive, counts) = (self.settings, self.ledger.close());
        Outcome { plan, drive, elapsed, span, counts, measured }
    }
}
