use proptest::prelude::*;

use super::*;

fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

fn fail(health: &mut Health, now: f64, times: u32) -> bool {
    (0..times).any(|_| health.outcome(at(now), Outcome::Fault))
}

#[test]
fn five_faults_in_a_row_leave_it_out() {
    let mut health = Health::new(HealthSettings::default());
    assert!(!fail(&mut health, 0.0, 4));
    health.outcome(at(0.0), Outcome::Good);
    assert!(!fail(&mut health, 0.0, 4));
    assert!(fail(&mut health, 0.0, 1));
    assert!(health.weight(at(4.9)) <= 0.0);
}

#[test]
fn busy_is_no_fault_and_no_success() {
    let mut health = Health::new(HealthSettings::default());
    for _ in 0..100 {
        health.outcome(at(0.0), Outcome::Busy);
    }
    assert!(!fail(&mut health, 0.0, 4));
    health.outcome(at(0.0), Outcome::Busy);
    assert!(fail(&mut health, 0.0, 1));
}

#[test]
fn it_comes_back_by_and_by() {
    let mut health = Health::new(HealthSettings::default());
    fail(&mut health, 0.0, 5);
    let weights: Vec<f64> = [5.0, 7.5, 10.0, 15.0].map(|now| health.weight(at(now))).to_vec();
    assert_eq!(weights, [LEAST_WEIGHT, 0.25, 0.5, 1.0]);
}

#[test]
fn each_time_again_takes_twice_as_long_up_to_a_bound() {
    let mut health = Health::new(HealthSettings::default());
    let mut now = 0.0;
    let mut lasted = Vec::new();
    for _ in 0..8 {
        fail(&mut health, now, 5);
        let until = health.until.unwrap().as_secs_f64();
        lasted.push(until - now);
        now = until;
    }
    assert_eq!(lasted, [5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 300.0, 300.0]);
    fail(&mut health, now + 301.0, 5);
    assert_eq!(health.until, Some(at(now + 306.0)));
    assert_eq!(health.ejections(), 9);
}

#[test]
fn a_half_of_faults_leaves_it_out_even_between_successes() {
    let mut health = Health::new(HealthSettings::default());
    let ejected = (0..20).any(|i| {
        health.outcome(at(f64::from(i)), Outcome::Good);
        health.outcome(at(f64::from(i)), Outcome::Fault)
    });
    assert!(ejected);
}

#[test]
fn old_faults_do_not_count() {
    let mut health = Health::new(HealthSettings::default());
    for i in 0..200 {
        let now = f64::from(i) * 4.0;
        health.outcome(at(now), Outcome::Good);
        assert!(!health.outcome(at(now), Outcome::Fault));
    }
}

#[test]
fn at_most_half_of_a_fleet_is_left_out() {
    let healths: Vec<Health> = (0..5)
        .map(|i| {
            let mut health = Health::new(HealthSettings::default());
            fail(&mut health, f64::from(i) * 0.1, 5);
            health
        })
        .collect();
    let fleet: Vec<&Health> = healths.iter().collect();
    let weights = weights(&fleet, 0.5, at(1.0));
    assert_eq!(weights, [LEAST_WEIGHT, LEAST_WEIGHT, LEAST_WEIGHT, 0.0, 0.0]);
}

proptest! {
    #[test]
    fn weights_stay_in_range_and_half_stay_in(
        events in prop::collection::vec((0usize..6, 0u64..3000, 0u8..3), 0..400),
    ) {
        let mut healths = vec![Health::new(HealthSettings::default()); 6];
        let mut now = Duration::ZERO;
        for (which, millis, outcome) in events {
            now += Duration::from_millis(millis);
            let outcome = [Outcome::Good, Outcome::Fault, Outcome::Busy][usize::from(outcome)];
            healths[which].outcome(now, outcome);
            let fleet: Vec<&Health> = healths.iter().collect();
            let weights = weights(&fleet, 0.5, now);
            prop_assert!(weights.iter().all(|weight| (0.0..=1.0).contains(weight)));
            prop_assert!(weights.iter().filter(|&&weight| weight > 0.0).count() >= 3);
        }
    }
}
