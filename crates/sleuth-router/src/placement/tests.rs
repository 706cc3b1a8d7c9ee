use super::*;

mod properties;
mod world;

const SECOND: Duration = Duration::from_secs(1);

fn ids(count: usize) -> Vec<ReplicaId> {
    (0..count).map(|i| ReplicaId::new(format!("replica-{i}"))).collect()
}

fn key(id: &str) -> GroupKey {
    GroupKey { tenant: Arc::from("tenant"), id: Arc::from(id) }
}

fn prefix(number: u64) -> PrefixDigest {
    // As a digest would: bits of all places matter.
    let mut state = number;
    let mut digest = [0; 32];
    for chunk in digest.chunks_mut(8) {
        state =
            (state ^ (state >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).wrapping_add(0x9e37_79b9);
        chunk.copy_from_slice(&state.to_le_bytes());
    }
    digest
}

fn alone(number: u64) -> Ask<'static> {
    Ask {
        prefix: prefix(number),
        group: None,
        prefix_cost: 0.004,
        item_cost: 0.001,
        version: None,
        splittable: false,
        avoid: &[],
        before: None,
    }
}

fn member(key: &GroupKey, number: u64, size: u32) -> Ask<'_> {
    Ask { group: Some(AskGroup { key, size, item_cost: 0.001 }), ..alone(number) }
}

fn pool(count: usize) -> Placement {
    let mut placement = Placement::new(PlacementSettings::default());
    placement.set_replicas(&ids(count), Duration::ZERO);
    for id in ids(count) {
        let versions = vec![Arc::from("v1")];
        let report = Report { is_first: true, versions, ..Report::default() };
        placement.report(&id, &report, Duration::ZERO);
    }
    placement
}

#[test]
fn no_replica_is_an_error_that_says_why() {
    let mut placement = Placement::new(PlacementSettings::default());
    assert_eq!(placement.place(&alone(1), SECOND).unwrap_err(), Unplaced::NoReplicas);
    let mut placement = pool(3);
    let drains = Report { draining: true, ..Report::default() };
    placement.report(&ids(3)[0], &drains, SECOND);
    placement.set_health(&ids(3)[1], 0.0, SECOND);
    placement.set_health(&ids(3)[2], f64::NAN, SECOND);
    let none = Unplaced::NoneAvailable { draining: 1, unhealthy: 2 };
    assert_eq!(placement.place(&alone(1), SECOND).unwrap_err(), none);
    let mut placement = pool(3);
    let ask = Ask { version: Some("v2"), ..alone(1) };
    assert_eq!(placement.place(&ask, SECOND).unwrap_err(), Unplaced::NoneWithVersion);
}

#[test]
fn a_group_stays_together_and_its_prefix_is_charged_once() {
    let mut placement = pool(4);
    let group = key("a");
    let placed: Vec<Placed> =
        (0..8).map(|_| placement.place(&member(&group, 1, 8), SECOND).unwrap()).collect();
    assert!(placed.iter().all(|one| one.replica == placed[0].replica));
    assert_eq!(placed[0].reason, Reason::Rendezvous);
    assert!(placed[1..].iter().all(|one| one.reason == Reason::Group));
    let load: f64 = placement.snapshot().iter().map(|replica| replica.load).sum();
    assert!((load - 0.012).abs() < 1e-9, "{load}");
}

#[test]
fn the_whole_group_counts_from_its_first_item_until_nobody_comes() {
    let mut placement = pool(4);
    let group = key("a");
    let placed = placement.place(&member(&group, 1, 8), SECOND).unwrap();
    let load = |placement: &Placement| placement.snapshot().iter().map(|one| one.load).sum::<f64>();
    assert!((load(&placement) - 0.012).abs() < 1e-9);
    placement.end(placed.ticket, 3 * SECOND, true);
    assert!(load(&placement) <= 0.0);
}

#[test]
fn a_later_item_goes_where_the_prefix_is() {
    let mut placement = pool(4);
    let placed = placement.place(&alone(1), SECOND).unwrap();
    let other = ids(4).into_iter().find(|id| *id != placed.replica).unwrap();
    placement.end(placed.ticket, SECOND, false);
    let report = Report { added: vec![prefix(1)], ..Report::default() };
    placement.report(&other, &report, SECOND);
    let placed = placement.place(&alone(1), SECOND).unwrap();
    assert_eq!((placed.replica, placed.reason), (other.clone(), Reason::Resident));
    placement.end(placed.ticket, SECOND, false);
    placement.lost(&other);
    let placed = placement.place(&alone(1), SECOND).unwrap();
    assert_eq!(placed.reason, Reason::Rendezvous);
    placement.end(placed.ticket, SECOND, false);
}

#[test]
fn a_holder_that_is_loaded_far_above_the_others_is_passed_over() {
    let mut placement = pool(4);
    let holder = ids(4)[2].clone();
    let report = |queue| Report { queue, added: vec![prefix(1)], ..Report::default() };
    placement.report(&holder, &report(0.003), SECOND);
    let placed = placement.place(&alone(1), SECOND).unwrap();
    assert_eq!(placed.replica, holder);
    placement.end(placed.ticket, SECOND, true);
    placement.report(&holder, &report(10.0), SECOND);
    let placed = placement.place(&alone(1), SECOND).unwrap();
    assert_ne!(placed.replica, holder);
    placement.end(placed.ticket, SECOND, true);
}

#[test]
fn what_this_router_sent_is_not_counted_twice() {
    let mut placement = pool(1);
    let id = ids(1)[0].clone();
    let placed = placement.place(&alone(1), SECOND).unwrap();
    // Its own 5 ms and 20 ms of others.
    placement.report(&id, &Report { queue: 0.025, ..Report::default() }, SECOND);
    assert!((placement.snapshot()[0].load - 0.025).abs() < 1e-9);
    // A report from before the verdict.
    placement.end(placed.ticket, SECOND, true);
    placement.report(&id, &Report { queue: 0.005, ..Report::default() }, SECOND);
    assert!(placement.snapshot()[0].load <= 0.0);
}

#[test]
fn one_large_group_is_split_when_alone_and_its_members_spread_by_cost() {
    let mut placement = pool(8);
    let group = key("a");
    let ask = Ask { splittable: true, ..member(&group, 1, 256) };
    let placed: Vec<Placed> = (0..256).map(|_| placement.place(&ask, SECOND).unwrap()).collect();
    assert!(placed.iter().all(|one| one.version.as_deref() == Some("v1")));
    let splits = placed.iter().filter(|one| one.reason == Reason::Split).count();
    assert!(splits >= 3, "{splits}");
    let loads: Vec<f64> = placement.snapshot().iter().map(|one| one.load).collect();
    let busy = loads.iter().filter(|&&load| load > 0.0).count();
    let most = loads.iter().copied().fold(0.0, f64::max);
    assert_eq!(busy, splits + 1);
    assert!(most <= 0.004 + 0.256 / busy as f64 + 0.0011, "{loads:?}");
}

#[test]
fn an_unsplittable_group_is_not_split() {
    let mut placement = pool(8);
    let group = key("a");
    let homes: std::collections::HashSet<ReplicaId> = (0..256)
        .map(|_| placement.place(&member(&group, 1, 256), SECOND).unwrap().replica)
        .collect();
    assert_eq!(homes.len(), 1);
}

#[test]
fn a_failed_item_goes_elsewhere_and_with_the_version_of_those_that_are_out() {
    let mut placement = pool(2);
    let group = key("a");
    let first = placement.place(&member(&group, 1, 8), SECOND).unwrap();
    let failed = placement.place(&member(&group, 1, 8), SECOND).unwrap();
    placement.end(failed.ticket, SECOND, false);
    let avoid = [failed.replica];
    let ask = Ask { avoid: &avoid, ..member(&group, 1, 8) };
    let other = ids(2).into_iter().find(|id| *id != avoid[0]).unwrap();
    let report = Report { versions: vec![Arc::from("v2")], ..Report::default() };
    placement.report(&other, &report, SECOND);
    let again = placement.place(&ask, SECOND).unwrap();
    assert_eq!(again.replica, avoid[0], "no other has the version");
    placement.end(again.ticket, SECOND, true);
    let report = Report { versions: vec![Arc::from("v2"), Arc::from("v1")], ..Report::default() };
    placement.report(&other, &report, SECOND);
    let placed = placement.place(&ask, SECOND).unwrap();
    assert_eq!((placed.replica, placed.reason), (other, Reason::Failover));
    assert_eq!(placed.version.as_deref(), Some("v1"));
    placement.end(first.ticket, SECOND, true);
    placement.end(placed.ticket, SECOND, true);
}

#[test]
fn an_avoided_replica_is_used_if_there_is_no_other() {
    let mut placement = pool(1);
    let avoid = ids(1);
    let placed = placement.place(&Ask { avoid: &avoid, ..alone(1) }, SECOND).unwrap();
    assert_eq!(placed.replica, avoid[0]);
    placement.end(placed.ticket, SECOND, true);
}

#[test]
fn a_step_is_even_to_a_tenth() {
    let mut placement = pool(8);
    for number in 0..64 {
        let group = key(&number.to_string());
        for _ in 0..8 {
            let ask = Ask { splittable: true, ..member(&group, number, 8) };
            let _kept = placement.place(&ask, SECOND).unwrap();
        }
    }
    let loads: Vec<f64> = placement.snapshot().iter().map(|one| one.load).collect();
    let mean = loads.iter().sum::<f64>() / 8.0;
    assert!(loads.iter().all(|load| (load / mean - 1.0).abs() <= 0.1), "{loads:?}");
}

#[test]
fn what_comes_together_is_placed_costliest_first_and_by_what_it_costs() {
    let mut placement = pool(2);
    let keys: Vec<GroupKey> = (0..4).map(|i| key(&i.to_string())).collect();
    // Groups of 1, 2, 3 and 6 units, whose hints all say 1.
    let asks: Vec<Ask<'_>> = [1.0, 2.0, 3.0, 6.0]
        .iter()
        .zip(&keys)
        .enumerate()
        .flat_map(|(number, (&units, key))| {
            let ask = Ask { item_cost: 0.1 * units, ..member(key, number as u64, 2) };
            [ask, ask]
        })
        .collect();
    let placed = placement.place_together(&asks, SECOND);
    let homes: Vec<ReplicaId> =
        placed.iter().map(|one| one.as_ref().unwrap().replica.clone()).collect();
    assert!(homes.chunks(2).all(|pair| pair[0] == pair[1]), "{homes:?}");
    let alone = homes.iter().filter(|&home| *home == homes[6]).count();
    assert_eq!(alone, 2, "the largest has a replica for itself: {homes:?}");
}

#[test]
fn a_step_that_comes_together_is_not_split_though_it_is_the_first() {
    let mut placement = pool(8);
    let keys: Vec<GroupKey> = (0..64).map(|i| key(&i.to_string())).collect();
    let asks: Vec<Ask<'_>> = (0..512)
        .map(|i| Ask { splittable: true, ..member(&keys[i % 64], i as u64 % 64, 8) })
        .collect();
    let placed = placement.place_together(&asks, SECOND);
    let splits = placed.iter().filter(|one| one.as_ref().unwrap().reason == Reason::Split);
    assert_eq!(splits.count(), 0);
    let loads: Vec<f64> = placement.snapshot().iter().map(|one| one.load).collect();
    assert!(loads.iter().all(|load| (load - 0.096).abs() < 0.0125), "{loads:?}");
}

#[test]
fn only_what_has_no_place_waits_and_only_while_all_are_busy() {
    let mut placement = pool(2);
    let ask = Ask { item_cost: 1.0, ..alone(1) };
    assert!(placement.patience(&ask, SECOND).is_zero());
    let one = placement.place(&ask, SECOND).unwrap();
    assert!(placement.patience(&alone(2), SECOND).is_zero());
    let two = placement.place(&Ask { item_cost: 1.0, ..alone(2) }, SECOND).unwrap();
    assert_ne!(one.replica, two.replica);
    assert_eq!(placement.patience(&alone(3), SECOND), Duration::from_millis(20));
    assert!(placement.patience(&alone(2), SECOND).is_zero(), "its prefix has a place");
    placement.end(one.ticket, SECOND, true);
    assert!(placement.patience(&alone(3), SECOND).is_zero());
    placement.end(two.ticket, SECOND, true);
}

#[test]
fn placing_nothing_together_is_nothing() {
    assert!(pool(2).place_together(&[], SECOND).is_empty());
    let mut none = Placement::new(PlacementSettings::default());
    assert!(none.place_together(&[alone(1)], SECOND)[0].is_err());
    assert_eq!(none.patience(&alone(1), SECOND), Duration::from_millis(20));
}
