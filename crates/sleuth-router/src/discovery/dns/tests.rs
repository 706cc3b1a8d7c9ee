//! By scripted answers, with time paused.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::discovery::{Membership, Scheme};

/// An answer, or none at all.
#[derive(Clone)]
enum Said {
    Answer(Answer),
    Fault(&'static str),
    Nothing,
}

/// Answers in turn; the last one again and again.
#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<VecDeque<Said>>>,
    looks: Arc<Mutex<Vec<Instant>>>,
}

impl Resolve for Script {
    async fn resolve(&mut self, _: &str) -> Result<Answer, String> {
        self.looks.lock().unwrap().push(Instant::now());
        let answer = {
            let mut answers = self.answers.lock().unwrap();
            if answers.len() > 1 {
                answers.pop_front().unwrap()
            } else {
                answers.front().unwrap().clone()
            }
        };
        match answer {
            Said::Answer(answer) => Ok(answer),
            Said::Fault(why) => Err(why.to_owned()),
            Said::Nothing => std::future::pending().await,
        }
    }
}

struct Running {
    seen: watch::Receiver<Membership>,
    script: Script,
    _task: AbortOnDropHandle<()>,
}

fn good(ttl: u64, lasts: &[u8]) -> Said {
    let addresses = lasts.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect();
    Said::Answer(Answer { addresses, ttl: Duration::from_secs(ttl) })
}

fn bad(why: &'static str) -> Said {
    Said::Fault(why)
}

fn start(answers: impl IntoIterator<Item = Said>) -> Running {
    let script = Script {
        answers: Arc::new(Mutex::new(answers.into_iter().collect())),
        looks: Arc::default(),
    };
    let (members, seen) = Members::new();
    let dns = DnsSettings::new("sleuth.ns.svc", 50051, Scheme::Http);
    let task = follow_with(script.clone(), dns, DiscoverySettings::default(), members);
    Running { seen, script, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
}

impl Running {
    fn lasts(&self) -> Vec<String> {
        let last = |e: &Endpoint| {
            e.url.strip_prefix("http://10.0.0.").unwrap().strip_suffix(":50051").unwrap().into()
        };
        self.seen.borrow().endpoints.iter().map(last).collect()
    }

    fn fault(&self) -> String {
        self.seen.borrow().fault.clone().unwrap_or_default()
    }

    /// Seconds between looks.
    fn gaps(&self) -> Vec<f64> {
        let looks = self.script.looks.lock().unwrap();
        looks.windows(2).map(|two| (two[1] - two[0]).as_secs_f64()).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_to_live_paces_looks_within_bounds_and_with_jitter() {
    for (ttl, low, high) in [(0, 1.0, 1.11), (5, 4.49, 5.51), (3600, 26.9, 33.1)] {
        let running = start([good(ttl, &[1])]);
        sleep(Duration::from_secs(700)).await;
        let gaps = running.gaps();
        assert!(gaps.len() > 15, "{gaps:?}");
        assert!(gaps.iter().all(|gap| (low..high).contains(gap)), "{ttl}: {gaps:?}");
        assert!(gaps.windows(2).any(|two| (two[0] - two[1]).abs() > 0.001), "no jitter");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_leaves_when_two_good_answers_in_a_row_miss_it() {
    let flap = [good(5, &[1, 2]), good(5, &[2]), good(5, &[1]), good(5, &[2]), good(5, &[1, 2])];
    let running = start(flap.into_iter().chain([good(5, &[2])]));
    // Looks at about 0, 5, 6, 7, 8 s: each misses another one, but none misses it twice.
    for _ in 0..13 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(running.lasts(), ["1", "2"]);
    }
    sleep(Duration::from_secs(4)).await;
    assert_eq!(running.lasts(), ["2"]);
    assert_eq!(running.fault(), "");
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_is_there_at_once_and_a_bad_answer_counts_no_miss() {
    let running = start([
        good(1, &[1]),
        good(1, &[2]),
        bad("SERVFAIL"),
        bad("SERVFAIL"),
        good(1, &[1, 2, 3]),
    ]);
    sleep(Duration::from_millis(1500)).await;
    assert_eq!(running.lasts(), ["1", "2"]);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(running.lasts(), ["1", "2"]);
    assert_eq!(running.fault(), "sleuth.ns.svc: SERVFAIL");
    sleep(Duration::from_secs(4)).await;
    assert_eq!((running.lasts().len(), running.fault()), (3, String::new()));
}

#[tokio::test(start_paused = true)]
async fn faults_keep_the_endpoints_for_the_grace_and_no_longer() {
    let empty = good(5, &[]);
    for fault in [bad("NXDOMAIN"), bad("SERVFAIL"), empty, Said::Nothing] {
        let running = start([good(1, &[1, 2]), fault]);
        sleep(Duration::from_secs(2)).await;
        // The first failed look was at 1 s to 1.1 s; a hanging one ended 10 s later.
        sleep(Duration::from_secs(28)).await;
        assert_eq!(running.lasts(), ["1", "2"]);
        assert!(!running.fault().is_empty());
        sleep(Duration::from_secs(13)).await;
        assert!(running.lasts().is_empty(), "{}", running.fault());
        assert!(running.seen.borrow().known && !running.fault().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn one_good_answer_renews_the_grace() {
    let mut answers = vec![good(1, &[1])];
    for _ in 0..6 {
        answers.extend([bad("a"), bad("a"), bad("a"), bad("a"), good(1, &[1])]);
    }
    let running = start(answers);
    for _ in 0..90 {
        sleep(Duration::from_secs(1)).await;
        assert_eq!(running.lasts(), ["1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn failed_looks_come_slower_and_a_server_that_never_answered_is_told() {
    let running = start([bad("REFUSED")]);
    sleep(Duration::from_secs(200)).await;
    let gaps = running.gaps();
    assert!(gaps[0] < 1.2 && gaps[3] > 7.0 && gaps.iter().all(|gap| *gap < 33.1), "{gaps:?}");
    assert!(running.fault().contains("for 30s") || running.fault().contains("REFUSED"));
    assert!(!running.seen.borrow().known);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_endpoints_and_more_are_bounded() {
    let many = |count: u32| {
        let addresses = (0..count).map(|i| IpAddr::from((10 << 24 | i).to_be_bytes())).collect();
        Said::Answer(Answer { addresses, ttl: Duration::from_secs(1) })
    };
    let running = start([many(1000), many(200_000)]);
    sleep(Duration::from_millis(500)).await;
    assert_eq!(running.seen.borrow().endpoints.len(), 1000);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(running.seen.borrow().endpoints.len(), MAX_ENDPOINTS);
}
