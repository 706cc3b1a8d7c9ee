use std::thread;

use sleuth_cuda::{
    Exhausted, FaultClass, MemoryShare, Owner, Pool, PoolSettings, ReserveError, Segment,
    StoreError,
};

use crate::harness::{Standin, content, key, read, store};

/// A round trip to a device, after which it has freed what was let go before.
fn settle(pool: &Pool, ordinal: u32) {
    for _ in 0..2 {
        pool.device(ordinal).unwrap().run(|_| ()).wait().unwrap();
    }
}

fn try_store(pool: &Pool, bytes: usize) -> Result<Segment, StoreError> {
    let job = move |owner: &mut Owner| owner.store(key(1), &vec![1; bytes], None);
    pool.device(0).unwrap().run(job).wait().unwrap()
}

#[test]
fn a_segment_keeps_its_bytes_and_is_freed_when_the_last_one_goes() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings { verify: true, ..PoolSettings::default() });
    for bytes in [0, 1, 511, 512, 513, 100_000] {
        let written = content(bytes as u64, bytes);
        let segment = store(&pool, 0, 3, &written);
        assert_eq!((segment.key(), segment.ordinal()), (key(3), 0));
        assert_eq!(segment.bytes(), bytes as u64);
        assert_eq!(segment.checksum(), Some(blake3::hash(&written)));
        assert_eq!(read(&pool, &segment), written);
        let counted = bytes.div_ceil(512) as u64 * 512;
        assert_eq!(pool.device(0).unwrap().budget().used, counted);
        let other = segment.clone();
        drop(segment);
        settle(&pool, 0);
        assert_eq!(standin.used(0), counted);
        // On another thread: the stand-in sees to it that the owner frees.
        thread::spawn(move || drop(other)).join().unwrap();
        settle(&pool, 0);
        assert_eq!((standin.used(0), pool.device(0).unwrap().budget().used), (0, 0));
    }
}

#[test]
fn no_room_is_told_in_numbers_and_changes_nothing() {
    let standin = Standin::new(1, 128 << 10);
    let share = MemoryShare::new(0.5).unwrap();
    let (_, pool) = standin.pool(PoolSettings { memory_share: share, ..PoolSettings::default() });
    let held = try_store(&pool, 40 << 10).unwrap();
    let refused = try_store(&pool, 30_000).unwrap_err();
    let exhausted = Exhausted { device: 0, wanted: 30_208, free: 24 << 10 };
    assert_eq!(refused, StoreError::Exhausted(exhausted));
    assert_eq!(
        refused.to_string(),
        "device 0 has no room for 30208 bytes: 24576 are free within its share of memory"
    );
    let fits = try_store(&pool, 24 << 10).unwrap();
    assert_eq!(standin.used(0), 64 << 10);
    drop((held, fits));
    // Room that was just let go counts at once.
    assert!(try_store(&pool, 64 << 10).is_ok());
}

#[test]
fn the_budget_follows_what_others_take_and_give_back() {
    let standin = Standin::new(1, 128 << 10);
    let (_, pool) = standin.pool(PoolSettings::default());
    standin.foreign(0, 100 << 10);
    let refused = try_store(&pool, 64 << 10).unwrap_err();
    assert_eq!(refused, Exhausted { device: 0, wanted: 64 << 10, free: 28 << 10 }.into());
    assert_eq!(pool.device(0).unwrap().budget().limit, 28 << 10);
    standin.foreign(0, 0);
    assert!(try_store(&pool, 128 << 10).is_ok());
}

#[test]
fn a_job_may_use_again_what_it_let_go() {
    let standin = Standin::new(1, 64 << 10);
    let (_, pool) = standin.pool(PoolSettings::default());
    let job = |owner: &mut Owner| {
        for _ in 0..3 {
            drop(owner.store(key(1), &vec![1; 40 << 10], None)?);
        }
        Ok::<(), StoreError>(())
    };
    assert_eq!(pool.device(0).unwrap().run(job).wait().unwrap(), Ok(()));
}

#[test]
fn a_plan_caps_what_segments_take() {
    let standin = Standin::new(1, 128 << 10);
    let (_, pool) = standin.pool(PoolSettings::default());
    pool.device(0).unwrap().cap(32 << 10);
    let refused = try_store(&pool, 33 << 10).unwrap_err();
    assert_eq!(refused, Exhausted { device: 0, wanted: 33 << 10, free: 32 << 10 }.into());
    assert!(try_store(&pool, 32 << 10).is_ok());
}

#[test]
fn held_room_is_nobody_elses() {
    let standin = Standin::new(1, 64 << 10);
    let (_, pool) = standin.pool(PoolSettings::default());
    let device = pool.device(0).unwrap();
    let mut room = device.reserve(40 << 10).unwrap();
    assert_eq!((room.ordinal(), room.bytes()), (0, 40 << 10));
    let refused = device.reserve(25 << 10).unwrap_err();
    let exhausted = Exhausted { device: 0, wanted: 25 << 10, free: 24 << 10 };
    assert_eq!(refused, ReserveError::Exhausted(exhausted));
    assert!(try_store(&pool, 25 << 10).is_err());
    let (segment, room) = device
        .run(move |owner| (owner.store(key(1), &vec![7; 30 << 10], Some(&mut room)), room))
        .wait()
        .unwrap();
    let segment = segment.unwrap();
    assert_eq!(room.bytes(), 10 << 10);
    let budget = device.budget();
    assert_eq!((budget.used, budget.reserved), (30 << 10, 10 << 10));
    drop((room, segment));
    settle(&pool, 0);
    let budget = device.budget();
    assert_eq!((budget.used, budget.reserved), (0, 0));
}

#[test]
fn a_segment_of_another_device_is_not_read() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    let segment = store(&pool, 0, 1, b"bytes");
    let refused = pool.device(1).unwrap().run(move |owner| owner.read(&segment)).wait().unwrap();
    assert_eq!(refused.unwrap_err().class(), FaultClass::Bug);
    assert_eq!(standin.calls("cuMemcpyDtoHAsync_v2", 1), 1, "only discovery's own");
}

#[test]
fn segments_may_outlive_their_pool() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    let segment = store(&pool, 0, 1, b"bytes");
    let room = pool.device(0).unwrap().reserve(512).unwrap();
    drop(pool);
    assert_eq!(standin.used(0), 0);
    drop((segment, room));
}

#[test]
fn many_threads_store_read_and_let_go_at_once() {
    let standin = Standin::new(3, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings { queue: 4, ..PoolSettings::default() });
    thread::scope(|scope| {
        for number in 0..12_u32 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..20 {
                    let written = content(u64::from(number * 100 + round), 700 + round as usize);
                    let segment = store(pool, number % 3, 1, &written);
                    assert_eq!(read(pool, &segment), written);
                }
            });
        }
    });
    for ordinal in 0..3 {
        settle(&pool, ordinal);
        assert_eq!(standin.used(ordinal.cast_signed()), 0);
    }
}
