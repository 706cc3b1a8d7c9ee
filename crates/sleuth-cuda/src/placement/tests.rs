use proptest::prelude::*;

use super::*;

const NEED: ReplicaNeed = ReplicaNeed { weights: 600, workspace: 100, smallest_cache: 50 };

fn candidate(ordinal: u32, free_bytes: u64) -> Candidate {
    Candidate { ordinal, free_bytes, unfit: None }
}

fn placed(plan: &Plan) -> Vec<u32> {
    plan.replicas.iter().map(|placed| placed.ordinal).collect()
}

#[test]
fn more_free_memory_comes_first_then_the_lower_ordinal() {
    let devices = [candidate(0, 900), candidate(1, 2000), candidate(2, 900), candidate(3, 749)];
    let plan = place(&devices, MemoryShare::ALL, &NEED, Wanted::AsManyAsFit, None).unwrap();
    assert_eq!(placed(&plan), [1, 0, 2]);
    assert_eq!(plan.replicas[0].cache_bytes, 1300);
    assert_eq!(plan.left_out, [(3, Why::TooSmall { needed: 750, usable: 749 })]);
    assert_eq!(plan.short, 0);
}

#[test]
fn every_device_without_a_replica_has_its_reason() {
    let unfit = UnfitReason::MemoryTest;
    let devices = [
        candidate(0, 900),
        Candidate { unfit: Some(unfit.clone()), ..candidate(1, 4000) },
        candidate(2, 800),
        candidate(3, 5000),
    ];
    let plan =
        place(&devices, MemoryShare::ALL, &NEED, Wanted::Exactly(1), Some(&[0, 1, 2])).unwrap();
    assert_eq!(placed(&plan), [0]);
    assert_eq!(plan.left_out, [(1, Why::Unfit(unfit)), (2, Why::NotWanted), (3, Why::NotListed)]);
}

#[test]
fn too_few_places_are_counted_and_a_wrong_list_is_refused() {
    let devices = [candidate(0, 900)];
    let plan = place(&devices, MemoryShare::ALL, &NEED, Wanted::Exactly(3), None).unwrap();
    assert_eq!((placed(&plan), plan.short), (vec![0], 2));
    let place =
        |only: &[u32]| place(&devices, MemoryShare::ALL, &NEED, Wanted::AsManyAsFit, Some(only));
    assert_eq!(place(&[1]), Err(BadList::Unknown(1)));
    assert_eq!(place(&[0, 0]), Err(BadList::Twice(0)));
}

fn devices() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec((0_u64..4000, prop::bool::weighted(0.2)), 0..9).prop_map(|rows| {
        rows.into_iter()
            .enumerate()
            .map(|(ordinal, (free_bytes, broken))| Candidate {
                unfit: broken.then_some(UnfitReason::MemoryTest),
                ..candidate(ordinal as u32, free_bytes)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn plans_keep_their_promises(
        devices in devices(),
        share in 0.01_f64..=1.0,
        need in (0_u64..2000, 0_u64..500, 0_u64..500),
        wanted in prop::option::of(0_usize..9),
        mask in any::<u16>(),
        rotate in 0_usize..9,
    ) {
        let share = MemoryShare::new(share).unwrap();
        let need = ReplicaNeed { weights: need.0, workspace: need.1, smallest_cache: need.2 };
        let wanted = wanted.map_or(Wanted::AsManyAsFit, Wanted::Exactly);
        let only: Vec<u32> =
            devices.iter().map(|d| d.ordinal).filter(|o| mask & (1 << o) != 0).collect();
        let plan = place(&devices, share, &need, wanted, Some(&only)).unwrap();

        // The order in which devices are told does not matter.
        let mut turned = devices.clone();
        if !turned.is_empty() {
            let by = rotate % turned.len();
            turned.rotate_left(by);
        }
        prop_assert_eq!(&plan, &place(&turned, share, &need, wanted, Some(&only)).unwrap());

        // Everybody is told of, once.
        let mut all = placed(&plan);
        all.extend(plan.left_out.iter().map(|(ordinal, _)| *ordinal));
        all.sort_unstable();
        prop_assert_eq!(all, devices.iter().map(|d| d.ordinal).collect::<Vec<_>>());

        let room = |d: &Candidate| share.of(d.free_bytes);
        for replica in &plan.replicas {
            let device = &devices[replica.ordinal as usize];
            prop_assert!(device.unfit.is_none() && only.contains(&replica.ordinal));
            prop_assert!(replica.cache_bytes >= need.smallest_cache);
            let taken = replica.weights + replica.workspace + replica.cache_bytes;
            prop_assert_eq!(taken, room(device));
            prop_assert!(taken <= device.free_bytes);
        }
        let fits: Vec<_> = devices
            .iter()
            .filter(|d| d.unfit.is_none() && only.contains(&d.ordinal))
            .filter(|d| room(d) >= need.smallest())
            .collect();
        let most = match wanted {
            Wanted::AsManyAsFit => fits.len(),
            Wanted::Exactly(count) => count,
        };
        prop_assert_eq!(plan.replicas.len(), fits.len().min(most));
        prop_assert_eq!(plan.short, if wanted == Wanted::AsManyAsFit { 0 } else { most - plan.replicas.len() });
        // Nobody that was passed over had more memory than one that was taken.
        for out in fits.iter().filter(|d| !placed(&plan).contains(&d.ordinal)) {
            for replica in &plan.replicas {
                let taken = &devices[replica.ordinal as usize];
                prop_assert!((taken.free_bytes, out.ordinal) > (out.free_bytes, taken.ordinal));
            }
        }
    }
}
