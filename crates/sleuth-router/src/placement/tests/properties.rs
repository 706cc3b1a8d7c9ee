use proptest::prelude::*;

use super::world::{Event, World, event};
use super::*;

fn settings() -> PlacementSettings {
    PlacementSettings { assumed_resident: 3600 * SECOND, ..PlacementSettings::default() }
}

/// Where each prefix goes in an idle pool.
fn homes(placement: &mut Placement, prefixes: impl Iterator<Item = u64>) -> Vec<(u64, ReplicaId)> {
    prefixes
        .map(|number| {
            let placed = placement.place(&alone(number), SECOND).unwrap();
            placement.end(placed.ticket, SECOND, false);
            (number, placed.replica)
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Also: nothing goes to a replica that takes nothing or that the item failed on, as the world
    /// checks with each placement.
    #[test]
    fn versions_of_a_group_are_never_mixed_and_load_returns_to_nothing(
        events in prop::collection::vec(event(), 0..200),
    ) {
        let mut world = World::new(settings());
        for event in events {
            world.step(event)?;
        }
        world.finish()?;
        prop_assert!(world.placement.fleet.out() <= 0.0);
        for (_, replica) in world.placement.fleet.iter() {
            prop_assert_eq!(replica.out(), Cost::ZERO);
            prop_assert_eq!(replica.items, 0);
        }
        prop_assert_eq!(world.placement.groups(), 0);
    }

    #[test]
    fn prefixes_are_computed_once_per_group_split_and_failover(
        events in prop::collection::vec(event(), 0..200),
    ) {
        let mut world = World::new(settings());
        for event in events {
            // Without reports nobody knows where a prefix is.
            if !matches!(event, Event::Lost { .. }) {
                world.step(event)?;
            }
        }
        let [_, _, rendezvous, spilled, split, failover] = world.reasons;
        prop_assert_eq!(world.computed, rendezvous + spilled + split + failover);
    }

    #[test]
    fn memory_is_bounded(
        asks in prop::collection::vec((0u64..1000, 0u32..20, any::<bool>()), 0..300),
    ) {
        let settings = PlacementSettings { max_groups: 8, max_prefixes: 16, ..settings() };
        let mut placement = Placement::new(PlacementSettings { assumed_resident: SECOND, ..settings });
        placement.set_replicas(&ids(3), Duration::ZERO);
        for (number, size, ends) in asks {
            let report = Report { added: vec![prefix(number + 5000)], ..Report::default() };
            placement.report(&ids(3)[0], &report, SECOND);
            let name = key(&number.to_string());
            let placed = placement.place(&member(&name, number, size), SECOND).unwrap();
            if ends {
                placement.end(placed.ticket, SECOND, true);
            } else {
                drop(placed);
            }
            prop_assert!(placement.groups() <= 8);
            prop_assert!(placement.groups.queued() <= 8 + 17);
        }
        // What is left is what is reported, and what is out there.
        placement.advance(10 * SECOND);
        let out: usize = placement.snapshot().iter().map(|one| one.unfinished).sum();
        prop_assert!(placement.residency.len() <= 16 + out);
    }

    #[test]
    fn a_replica_that_leaves_or_joins_moves_no_other_prefixes(
        count in 2usize..12,
        other in any::<prop::sample::Index>(),
    ) {
        let mut few = Placement::new(PlacementSettings::default());
        let mut many = Placement::new(PlacementSettings::default());
        let mut members = ids(count);
        many.set_replicas(&members, SECOND);
        let left = members.remove(other.index(count));
        few.set_replicas(&members, SECOND);
        let (before, after) = (homes(&mut many, 0..200), homes(&mut few, 0..200));
        for (before, after) in before.iter().zip(&after) {
            prop_assert!(before.1 == left || before.1 == after.1);
        }
        // And it had about its share.
        let moved = before.iter().filter(|home| home.1 == left).count();
        let share = 200.0 / count as f64;
        prop_assert!((moved as f64 - share).abs() < 5.0 * share.sqrt(), "{moved} of {share}");
    }

    #[test]
    fn two_routers_choose_alike_in_an_idle_pool_whatever_came_before(
        mut numbers in prop::collection::vec(0u64..10_000, 1..50),
        count in 1usize..12,
    ) {
        let (mut one, mut two) = (pool(count), Placement::new(PlacementSettings::default()));
        let mut reversed = ids(count);
        reversed.reverse();
        two.set_replicas(&reversed, SECOND);
        let mut first = homes(&mut one, numbers.iter().copied());
        numbers.reverse();
        let mut second = homes(&mut two, numbers.into_iter());
        first.sort_unstable();
        second.sort_unstable();
        prop_assert_eq!(first, second);
    }
}
