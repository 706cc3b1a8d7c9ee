use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::load::{Arrivals, CurvePoint, Measured, Until};

fn plan() -> PlanSettings {
    PlanSettings {
        arrivals: Arrivals::Steps { groups: 2, every: Duration::from_millis(1500) },
        group_size: 4,
        images: 2,
        until: Until::Seconds(Duration::from_secs(10)),
        warm_up: Duration::from_secs(2),
        least_words: 5,
        most_words: 9,
        seed: 11,
    }
}

/// Where nothing was sent.
pub(in crate::load) fn empty() -> Report {
    let none = || None;
    let (span, counts) = (Duration::ZERO, Counts::default());
    let measured = Measured {
        admitted: none(),
        refused: none(),
        queue: none(),
        compute: none(),
        beside: none(),
        lateness: none(),
        due: 0,
        valid: 0,
        series: Vec::new(),
    };
    let drive = DriveSettings::default();
    let elapsed = Duration::ZERO;
    Report::new(String::new(), Outcome { plan: plan(), drive, elapsed, span, counts, measured })
}

/// With a value for everything, and texts that need escapes.
pub(in crate::load) fn full() -> Report {
    let times = Percentiles {
        count: 80,
        p50_ms: 12.5,
        p90_ms: 30.0,
        p99_ms: 80.0,
        p999_ms: 210.0,
        max_ms: 250.0,
        curve: (0..=60)
            .map(|step| CurvePoint {
                percentile: 100.0 * (1.0 - 10_f64.powf(-f64::from(step) / 20.0)),
                ms: 5.0 * 1.07_f64.powi(step),
            })
            .collect(),
    };
    let point = |second| Point {
        second,
        seconds: 1,
        sent: 8 + second % 3,
        valid: 7,
        refused: second % 2,
        p99_ms: Some(80.0),
    };
    let measured = Measured {
        admitted: Some(times.clone()),
        refused: Some(Percentiles { p50_ms: 0.5, ..times.clone() }),
        queue: Some(times.clone()),
        compute: Some(times.clone()),
        beside: Some(times.clone()),
        lateness: Some(times),
        due: 80,
        valid: 60,
        series: (0..12).map(point).collect(),
    };
    let reasons = BTreeMap::from([("<QUEUE> & \"more\"\u{1b}[2J".to_owned(), 6)]);
    let counts = Counts {
        sent: 80,
        attempts: 80,
        valid: 72,
        refused: 6,
        lost: 2,
        refusals: BTreeMap::from([("OVERLOADED".to_owned(), reasons)]),
        losses: BTreeMap::from([("connection reset".to_owned(), 2)]),
        versions: BTreeMap::from([("v1".to_owned(), 72)]),
        not_batch_invariant: 1,
        ..Counts::default()
    };
    let (elapsed, span) = (Duration::from_millis(12_500), Duration::from_secs(12));
    let drive = DriveSettings::default();
    let outcome = Outcome { plan: plan(), drive, elapsed, span, counts, measured };
    Report::new("http://<host>:1?a&b".to_owned(), outcome)
}

#[test]
fn rates_are_over_the_time_after_the_warm_up() {
    let report = full();
    assert!((report.measured_seconds - 10.0).abs() < 1e-9);
    assert!((report.offered_per_second - 8.0).abs() < 1e-9);
    assert!((report.achieved_per_second - 6.0).abs() < 1e-9);
    assert_eq!((report.passes, report.problems.len()), (false, 1));
}

#[test]
fn the_json_has_plain_seconds_and_no_holes() {
    let json = serde_json::to_value(full()).expect("a report is JSON");
    assert_eq!(json["settings"]["plan"]["arrivals"]["every_seconds"], 1.5);
    assert_eq!(json["settings"]["plan"]["until"]["seconds"], 10.0);
    assert_eq!(json["settings"]["drive"]["grace_seconds"], 30.0);
    assert_eq!(json["admitted"]["p50_ms"], 12.5);
    assert_eq!(json["counts"]["versions"]["v1"], 72);
    let empty = serde_json::to_value(empty()).expect("a report is JSON");
    assert_eq!(empty["offered_per_second"], 0.0);
    assert!(empty["admitted"].is_null());
}

#[test]
fn the_table_tells_all_and_no_terminal_obeys_it() {
    let table = full().table();
    let value = |name: &str| table.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    assert_eq!(value("offered"), Some("8.0 items/s"));
    assert_eq!(value("lost"), Some("2"));
    assert_eq!(value("version: v1"), Some("72"));
    assert_eq!(value("verdict"), Some("fails"));
    assert_eq!(value("problem"), Some("2 attempts were lost"));
    assert!(value("latency, admitted").is_some_and(|v| v.starts_with("p50 12.5 ms, p90 30.0 ms")));
    assert_eq!(value("refused: OVERLOADED, <QUEUE> & \"more\" [2J"), Some("6"));
    assert!(empty().table().iter().all(|(name, _)| !name.starts_with("latency")));
}
