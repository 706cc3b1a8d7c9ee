use proptest::prelude::*;

use super::*;

fn settings(arrivals: Arrivals) -> PlanSettings {
    PlanSettings {
        arrivals,
        group_size: 4,
        images: 3,
        until: Until::Seconds(Duration::from_secs(100)),
        warm_up: Duration::ZERO,
        least_words: 5,
        most_words: 9,
        seed: 11,
    }
}

fn plan(settings: PlanSettings) -> Vec<Arrival> {
    Plan::try_new(settings).expect("a plan").collect()
}

#[test]
fn poisson_items_arrive_at_the_rate() {
    let all = plan(settings(Arrivals::Poisson { rate_per_second: 400.0 }));
    // 10,000 groups on average, with a standard deviation of 100.
    assert!((38_000..42_000).contains(&all.len()), "{}", all.len());
    let gaps: Vec<f64> = all
        .chunks(4)
        .map(|group| group[0].at.as_secs_f64())
        .collect::<Vec<_>>()
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    // The deviation of an exponential draw is its mean.
    assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{}", variance.sqrt() / mean);
}

#[test]
fn a_steps_groups_arrive_at_once() {
    let arrivals = Arrivals::Steps { groups: 2, every: Duration::from_secs(30) };
    let at: Vec<u64> = plan(settings(arrivals)).iter().map(|a| a.at.as_secs()).collect();
    assert_eq!(at, [[0; 8], [30; 8], [60; 8], [90; 8]].concat());
}

#[test]
fn even_groups_arrive_evenly_after_the_warm_up_too() {
    let arrivals = Arrivals::Even { rate_per_second: 4.0 };
    let settings = PlanSettings { warm_up: Duration::from_secs(5), ..settings(arrivals) };
    let span = settings.span();
    let all = plan(settings);
    assert_eq!(all.len(), 4 * 105);
    assert_eq!(all[8].at, Duration::from_secs(2));
    assert_eq!(span, Duration::from_secs(105));
}

#[test]
fn items_are_rounded_up_to_whole_groups() {
    let arrivals = Arrivals::Even { rate_per_second: 4.0 };
    let settings = PlanSettings { until: Until::Items(9), ..settings(arrivals) };
    assert_eq!(settings.span(), Duration::from_secs(3));
    assert_eq!(plan(settings).len(), 12);
}

#[test]
fn settings_that_make_no_plan_are_refused() {
    let fine = settings(Arrivals::Even { rate_per_second: 1.0 });
    let error = |settings| Plan::try_new(settings).err();
    for rate_per_second in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        let arrivals = Arrivals::Poisson { rate_per_second };
        assert_eq!(error(PlanSettings { arrivals, ..fine }), Some(PlanError::Rate));
    }
    let arrivals = Arrivals::Steps { groups: 0, every: Duration::from_secs(1) };
    let wrong = [
        (PlanSettings { arrivals, ..fine }, PlanError::Steps),
        (PlanSettings { group_size: 0, ..fine }, PlanError::GroupSize),
        (PlanSettings { group_size: u32::MAX, ..fine }, PlanError::GroupSize),
        (PlanSettings { images: 0, ..fine }, PlanError::Images),
        (PlanSettings { least_words: 10, ..fine }, PlanError::Words),
        (PlanSettings { most_words: usize::MAX, ..fine }, PlanError::Words),
        (PlanSettings { until: Until::Items(0), ..fine }, PlanError::Until),
    ];
    for (settings, why) in wrong {
        assert_eq!(error(settings), Some(why));
    }
}

fn arrivals() -> impl Strategy<Value = Arrivals> {
    prop_oneof![
        (1.0..1e4).prop_map(|rate_per_second| Arrivals::Poisson { rate_per_second }),
        (1.0..1e4).prop_map(|rate_per_second| Arrivals::Even { rate_per_second }),
        (1_usize..9, 1_u64..2000)
            .prop_map(|(groups, ms)| Arrivals::Steps { groups, every: Duration::from_millis(ms) }),
    ]
}

proptest! {
    #[test]
    fn a_plan_is_in_order_whole_and_the_same_every_time(
        (arrivals, seed, group_size, items) in (arrivals(), any::<u64>(), 1_u32..9, 1_u64..300)
    ) {
        let until = Until::Items(items);
        let settings = PlanSettings { group_size, until, seed, ..settings(arrivals) };
        let all = plan(settings);
        prop_assert_eq!(all.len() as u64, items.next_multiple_of(u64::from(group_size)));
        for (i, arrival) in all.iter().enumerate() {
            prop_assert_eq!(arrival.item, i as u64);
            prop_assert!((5..=9).contains(&arrival.words) && arrival.image < 3);
            let first = all[i - arrival.member as usize];
            prop_assert_eq!((first.at, first.image, first.group),
                (arrival.at, arrival.image, arrival.group));
        }
        prop_assert!(all.is_sorted_by_key(|a| a.at));
        prop_assert_eq!(plan(settings), all);
    }
}
