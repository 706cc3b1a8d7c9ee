use std::collections::HashMap;
use std::future::pending;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::load::{Arrivals, Until};

/// Answers as told, from the arrival and how often its item came before.
struct Told<F> {
    tell: F,
    seen: Mutex<HashMap<u64, u32>>,
    strays: Vec<Stray>,
}

impl<F, R> Target for Told<F>
where
    F: Fn(Arrival, u32) -> R + Send + Sync + 'static,
    R: Future<Output = Answer> + Send,
{
    async fn score(&self, arrival: Arrival) -> Answer {
        let before = {
            let mut seen = self.seen.lock().expect("no panic holds it");
            let times = seen.entry(arrival.item).or_default();
            *times += 1;
            *times - 1
        };
        (self.tell)(arrival, before).await
    }

    fn strays(&self) -> Vec<Stray> {
        self.strays.clone()
    }
}

fn told<F>(tell: F) -> Arc<Told<F>> {
    Arc::new(Told { tell, seen: Mutex::default(), strays: Vec::new() })
}

fn valid(fingerprint: u64) -> Answer {
    Answer::Valid {
        version: "a".to_owned(),
        rewards: 3,
        zeros: 0,
        response_reward: 0.5,
        batch_invariant: true,
        duplicates_joined: 0,
        queue: Duration::from_millis(2),
        compute: Duration::from_millis(1),
        fingerprint,
    }
}

fn refused(retry_after: Option<Duration>) -> Answer {
    let (class, reason) = ("OVERLOADED".to_owned(), "QUEUE".to_owned());
    Answer::Refused { class, reason, retry_after, retryable: true }
}

/// 10 items a second in groups of 1, for 10 s.
fn settings() -> PlanSettings {
    PlanSettings {
        arrivals: Arrivals::Even { rate_per_second: 10.0 },
        group_size: 1,
        images: 1,
        until: Until::Seconds(Duration::from_secs(10)),
        warm_up: Duration::ZERO,
        least_words: 1,
        most_words: 1,
        seed: 1,
    }
}

async fn run<T: Target>(plan: PlanSettings, target: Arc<T>, settings: DriveSettings) -> Outcome {
    let plan = Plan::try_new(plan).expect("a plan");
    drive(plan, target, settings, pending()).await
}

fn near(told: Option<f64>, truth: f64) -> bool {
    told.is_some_and(|told| (told - truth).abs() <= truth * 2e-3 + 1.0)
}

#[tokio::test(start_paused = true)]
async fn the_loop_is_open_though_the_target_never_answers() {
    let begin = Instant::now();
    let outcome = run(settings(), told(|_, _| pending::<Answer>()), DriveSettings::default()).await;
    assert_eq!((outcome.counts.sent, outcome.counts.unanswered), (100, 100));
    assert_eq!(outcome.counts.verdict().problems(), ["100 attempts were never answered"]);
    // The last item came at 9.9 s, and the grace is 30 s.
    assert!(begin.elapsed() < Duration::from_secs(41));
    let series = outcome.measured.series;
    assert!(series.len() >= 10 && series[..9].iter().all(|p| (9..=11).contains(&p.sent)));
    assert_eq!(outcome.measured.admitted, None);
}

#[tokio::test(start_paused = true)]
async fn latency_counts_from_the_planned_moment() {
    // Until 5 s the target answers nothing: of what came before, the earliest waited longest.
    let start = Instant::now();
    let target = told(move |_, _| async move {
        sleep_until(start + Duration::from_secs(5)).await;
        valid(1)
    });
    let outcome = run(settings(), target, DriveSettings::default()).await;
    let admitted = outcome.measured.admitted.expect("there are some");
    assert!(outcome.counts.verdict().passes());
    assert_eq!(admitted.count, 100);
    assert!(near(Some(admitted.max_ms), 5000.0), "{}", admitted.max_ms);
    assert!(near(Some(admitted.p90_ms), 4000.0), "{}", admitted.p90_ms);
    assert!(near(outcome.measured.queue.map(|p| p.p50_ms), 2.0));
}

#[tokio::test(start_paused = true)]
async fn the_generators_own_delay_counts_too() {
    // A target that holds the only thread holds the generator up.
    let target = told(|arrival: Arrival, _| {
        let held = if arrival.item == 0 { Duration::from_secs(1) } else { Duration::ZERO };
        async move {
            tokio::time::advance(held).await;
            valid(1)
        }
    });
    let outcome = run(settings(), target, DriveSettings::default()).await;
    let lateness = outcome.measured.lateness.expect("there are some");
    assert!(near(Some(lateness.max_ms), 900.0), "{}", lateness.max_ms);
    let admitted = outcome.measured.admitted.expect("there are some");
    assert!(near(Some(admitted.max_ms), 1000.0), "{}", admitted.max_ms);
    // Sent at 1 s and answered at once, but planned for 0.1 s.
    assert!(near(Some(admitted.p99_ms), 900.0), "{}", admitted.p99_ms);
}

#[tokio::test(start_paused = true)]
async fn what_would_pass_the_bound_is_not_sent_and_told() {
    let drive = DriveSettings { max_unfinished: 30, ..DriveSettings::default() };
    let outcome = run(settings(), told(|_, _| pending::<Answer>()), drive).await;
    let counts = outcome.counts;
    assert_eq!((counts.sent, counts.not_sent, counts.unanswered), (30, 70, 30));
    assert_eq!((counts.groups, outcome.measured.due), (100, 100));
}

#[tokio::test(start_paused = true)]
async fn refused_items_come_again_when_the_server_says() {
    let half = Some(Duration::from_millis(500));
    let target =
        told(move |_, before| async move { if before < 2 { refused(half) } else { valid(1) } });
    let retries = Retries { max: 3 };
    let drive = DriveSettings { retries, ..DriveSettings::default() };
    let outcome = run(settings(), target, drive).await;
    let counts = outcome.counts;
    assert_eq!((counts.sent, counts.attempts), (100, 300));
    assert_eq!((counts.valid, counts.refused), (100, 200));
    assert!(counts.verdict().passes());
    let (admitted, refused) = (outcome.measured.admitted, outcome.measured.refused);
    assert!(near(admitted.map(|p| p.p50_ms), 1000.0));
    assert!(refused.is_some_and(|p| p.max_ms < 5.0));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_final_without_retries_and_after_the_last() {
    let target = told(|_, _| async { refused(None) });
    let outcome = run(settings(), Arc::clone(&target), DriveSettings::default()).await;
    assert_eq!((outcome.counts.attempts, outcome.counts.refused), (100, 100));
    let drive = DriveSettings { retries: Retries { max: 2 }, ..DriveSettings::default() };
    let outcome = run(settings(), target, drive).await;
    assert_eq!((outcome.counts.attempts, outcome.counts.refused), (300, 300));
    assert_eq!(outcome.counts.refusals["OVERLOADED"]["QUEUE"], 300);
}

#[tokio::test(start_paused = true)]
async fn copies_with_other_rewards_are_found() {
    let target = told(|arrival: Arrival, before| async move {
        valid(if arrival.item == 20 { u64::from(before) } else { 7 })
    });
    let drive = DriveSettings { copy_every: NonZeroU64::new(10), ..DriveSettings::default() };
    let outcome = run(settings(), target, drive).await;
    let counts = outcome.counts;
    assert_eq!((counts.sent, counts.attempts, counts.changed_answers), (100, 110, 1));
    assert_eq!(counts.twice_answered, 0);
}

#[tokio::test(start_paused = true)]
async fn strays_are_verdicts_twice() {
    let arrival = Plan::try_new(settings()).expect("a plan").next().expect("an item");
    let strays = vec![Stray { arrival, answer: valid(1) }];
    let tell = |_, _| async { valid(1) };
    let target = Arc::new(Told { tell, seen: Mutex::default(), strays });
    let outcome = run(settings(), target, DriveSettings::default()).await;
    assert_eq!((outcome.counts.valid, outcome.counts.twice_answered), (100, 1));
}

#[tokio::test(start_paused = true)]
async fn the_warm_up_is_checked_but_not_measured() {
    let slow = Duration::from_secs(1);
    let plan = PlanSettings { warm_up: Duration::from_secs(3), ..settings() };
    let target = told(move |arrival: Arrival, _| async move {
        sleep(if arrival.item < 30 { slow } else { Duration::ZERO }).await;
        valid(1)
    });
    let outcome = run(plan, target, DriveSettings::default()).await;
    assert_eq!(outcome.counts.valid, 130);
    assert_eq!(outcome.measured.due, 100);
    let admitted = outcome.measured.admitted.expect("there are some");
    assert_eq!(admitted.count, 100);
    assert!(admitted.max_ms < 10.0, "{}", admitted.max_ms);
    assert_eq!(outcome.span, Duration::from_secs(13));
}

#[tokio::test(start_paused = true)]
async fn a_stop_ends_the_arrivals_and_still_takes_the_verdicts() {
    let target = told(|_, _| async {
        sleep(Duration::from_secs(2)).await;
        valid(1)
    });
    let plan = Plan::try_new(settings()).expect("a plan");
    let stop = sleep(Duration::from_millis(4050));
    let outcome = drive(plan, target, DriveSettings::default(), stop).await;
    assert_eq!((outcome.counts.sent, outcome.counts.valid), (41, 41));
    assert!(outcome.span < Duration::from_millis(4100), "{:?}", outcome.span);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_panics_leaves_its_item_unanswered() {
    let calls = AtomicU32::new(0);
    let target = told(move |_, _| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            assert!(call != 5, "the sixth call");
            valid(1)
        }
    });
    let outcome = run(settings(), target, DriveSettings::default()).await;
    assert_eq!((outcome.counts.valid, outcome.counts.unanswered), (99, 1));
}
