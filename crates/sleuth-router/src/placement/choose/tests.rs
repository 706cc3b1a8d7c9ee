use super::*;

fn candidates(loads: &[f64], prefix: f64) -> Vec<Candidate> {
    let mut fleet = super::super::fleet::Fleet::default();
    let ids: Vec<_> =
        (0..loads.len()).map(|i| super::super::ReplicaId::new(i.to_string())).collect();
    fleet.set(&ids, std::time::Duration::ZERO);
    let slots = ids.iter().filter_map(|id| fleet.slot(id));
    slots
        .zip(loads)
        .enumerate()
        .map(|(i, (slot, &load))| Candidate { slot, weight: 1.0, load, prefix, rank: i as f64 })
        .collect()
}

const TERMS: Terms = Terms { load_bound: 1.1, finish_slack: 0.1, gain: 1.0, level: 0.0 };

#[test]
fn an_idle_pool_takes_the_highest_rank() {
    assert_eq!(whole(&candidates(&[0.0; 4], 1.0), 1.0, TERMS), Some((3, Choice::First)));
}

#[test]
fn a_busy_first_choice_is_passed_over() {
    let pool = candidates(&[0.0, 0.0, 0.0, 5.0], 1.0);
    assert_eq!(whole(&pool, 1.0, TERMS), Some((2, Choice::Lower)));
}

#[test]
fn who_holds_the_prefix_is_preferred_until_that_costs_more_than_to_compute_it() {
    let mut pool = candidates(&[1.5, 0.0, 0.0], 1.0);
    pool[0].prefix = 0.0;
    assert_eq!(whole(&pool, 1.0, TERMS), Some((0, Choice::Resident)));
    pool[0].load = 2.5;
    assert_eq!(whole(&pool, 1.0, TERMS), Some((2, Choice::First)));
}

#[test]
fn no_candidates_no_choice() {
    assert_eq!(whole(&[], 1.0, TERMS), None);
    assert_eq!(split(&[], 1.0, 1.0, 1.0, TERMS), None);
}

#[test]
fn a_large_group_is_split_over_idle_replicas() {
    let pool = candidates(&[0.0; 4], 1.0);
    let parts = split(&pool, 64.0, 1.0, 65.0, TERMS).unwrap();
    assert_eq!(parts.iter().map(|part| part.1).collect::<Vec<_>>(), [16.0; 4]);
}

#[test]
fn no_split_where_prefixes_cost_what_is_won() {
    let pool = candidates(&[0.0; 4], 4.0);
    assert_eq!(split(&pool, 8.0, 1.0, 12.0, TERMS), None);
}

#[test]
fn no_split_to_finish_before_others_do() {
    let pool = candidates(&[0.0; 4], 1.0);
    let terms = Terms { level: 65.0, ..TERMS };
    assert_eq!(split(&pool, 64.0, 1.0, 65.0, terms), None);
}

#[test]
fn parts_finish_together() {
    let pool = candidates(&[3.0, 0.0, 9.0], 0.5);
    let parts = fill(&pool, &[0, 1, 2], 5.0);
    assert_eq!(parts, [(0, 1.0), (1, 4.0), (2, 0.0)]);
}
