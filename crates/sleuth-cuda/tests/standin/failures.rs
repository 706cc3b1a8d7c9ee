use std::sync::{Arc, Mutex, mpsc};
use std::thread;

use sleuth_cuda::{
    Fault, FaultClass, Health, ObtainError, Owner, Pool, PoolSettings, ReserveError, Sharing,
    StoreError, TransferError, Unfinished,
};

use crate::harness::{Standin, content, key, read, small_chunks, store, until, wait_until_lost};

const ECC: u32 = 214;

fn islands(standin: &Standin) {
    for reader in 0..4 {
        for owner in 0..4 {
            standin.can_read(reader, owner, 0);
        }
    }
}

fn no_answer(pool: &Pool, ordinal: u32) {
    let device = pool.device(ordinal).unwrap();
    assert!(matches!(device.health(), Health::Lost(fault) if fault.code == ECC));
    assert!(matches!(
        device.run(|_| ()).wait(),
        Err(Unfinished::DeviceLost { ordinal: of, job: Some(_), .. }) if of == ordinal
    ));
    let refused = device.reserve(u64::MAX / 2).unwrap_err();
    assert!(matches!(refused, ReserveError::DeviceLost { ordinal: of, .. } if of == ordinal));
}

#[test]
fn a_lost_device_sends_its_jobs_back_and_the_others_go_on() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = Arc::clone(&told);
    pool.on_health(Box::new(move |ordinal, health| {
        listener.lock().unwrap().push((ordinal, health));
    }));
    let (let_go, held) = mpsc::channel::<()>();
    let lost = pool.device(0).unwrap();
    let running = lost.run(move |owner: &mut Owner| {
        let _ = held.recv();
        owner.store(key(1), b"bytes", None).map(drop)
    });
    let waiting: Vec<_> = (0..5).map(|n| lost.run(move |owner| (owner.ordinal(), n))).collect();
    standin.lose(0, ECC);
    let_go.send(()).unwrap();
    // The job that met the fault has it as its own result.
    let fault = Fault { call: "cuMemAlloc_v2", code: ECC };
    assert_eq!(running.wait().unwrap(), Err(StoreError::Fault(fault)));
    // Those that had not begun come back, and are done elsewhere.
    for (n, job) in waiting.into_iter().enumerate() {
        let Err(Unfinished::DeviceLost { ordinal: 0, job: Some(job), fault: why }) = job.wait()
        else {
            panic!("job {n} was not sent back")
        };
        assert_eq!(why, fault);
        assert_eq!(pool.device(1).unwrap().run(job).wait().unwrap(), (1, n));
    }
    wait_until_lost(&pool, 0);
    no_answer(&pool, 0);
    assert_eq!(pool.health(), [(0, Health::Lost(fault)), (1, Health::Serving)]);
    assert_eq!(*told.lock().unwrap(), [(0, Health::Draining(fault)), (0, Health::Lost(fault))]);
    assert_eq!(read(&pool, &store(&pool, 1, 2, b"goes on")), b"goes on");
}

#[test]
fn a_wrong_call_does_not_take_a_device_out_of_service() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    for code in [1, 400, 801, 123_456] {
        standin.fail("cuMemcpyHtoDAsync_v2", 0, 1, code);
        let job = |owner: &mut Owner| owner.store(key(1), b"bytes", None).map(drop);
        let failed = pool.device(0).unwrap().run(job).wait().unwrap().unwrap_err();
        let fault = Fault { call: "cuMemcpyHtoDAsync_v2", code };
        assert_eq!((failed, fault.class()), (StoreError::Fault(fault), FaultClass::Bug));
        assert_eq!(pool.device(0).unwrap().health(), Health::Serving);
    }
    assert_eq!(pool.health_version(), 0);
}

#[test]
fn an_unknown_code_after_which_the_device_is_silent_means_that_it_is_lost() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    standin.lose_at("cuMemAlloc_v2", 0, 1, 0, 123_456);
    let job = |owner: &mut Owner| owner.store(key(1), b"bytes", None).map(drop);
    assert!(pool.device(0).unwrap().run(job).wait().unwrap().is_err());
    wait_until_lost(&pool, 0);
}

#[test]
fn what_candle_met_is_found_by_asking_the_device() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    assert_eq!(pool.device(0).unwrap().run(Owner::check).wait().unwrap(), Ok(()));
    standin.lose(0, ECC);
    assert!(pool.device(0).unwrap().run(Owner::check).wait().unwrap().is_err());
    wait_until_lost(&pool, 0);
}

#[test]
fn a_panic_that_hides_a_lost_device_is_looked_into() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    standin.lose(0, ECC);
    let job = |_: &mut Owner| panic!("an unwrapped error of candle");
    assert!(matches!(
        pool.device(0).unwrap().run(job).wait(),
        Err(Unfinished::Panicked { ordinal: 0, .. })
    ));
    wait_until_lost(&pool, 0);
}

#[test]
fn a_device_that_fails_to_free_is_lost_too() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    let segment = store(&pool, 0, 1, b"bytes");
    standin.lose(0, ECC);
    drop(segment);
    wait_until_lost(&pool, 0);
    no_answer(&pool, 0);
    assert_eq!(pool.device(0).unwrap().budget().used, 0);
}

#[test]
fn who_waits_for_room_in_a_lost_devices_queue_gets_the_job_back() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings { queue: 1, ..PoolSettings::default() });
    let (let_go, held) = mpsc::channel::<()>();
    let device = pool.device(0).unwrap();
    let running = device.run(move |owner: &mut Owner| {
        let _ = held.recv();
        owner.check()
    });
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let device = device.clone();
            thread::spawn(move || device.run(|_| ()).wait())
        })
        .collect();
    until(|| device.waiting() >= 1);
    standin.lose(0, ECC);
    let_go.send(()).unwrap();
    assert!(running.wait().unwrap().is_err());
    for caller in callers {
        let answer = caller.join().unwrap();
        assert!(matches!(answer, Err(Unfinished::DeviceLost { job: Some(_), .. })), "{answer:?}");
    }
}

#[test]
fn a_source_that_dies_in_mid_copy_is_blamed_and_the_destination_is_not() {
    // Directly, at the wait for the copy; through the host, at the second of eight chunks.
    for (peers, call, on, nth) in [
        (1, "cuMemcpyPeerAsync", 1, 1),
        (1, "cuStreamSynchronize", 1, 1),
        (0, "cuMemcpyDtoHAsync_v2", 0, 2),
        (0, "cuMemcpyHtoDAsync_v2", 1, 2),
    ] {
        let standin = Standin::new(2, 1 << 20);
        standin.can_read(1, 0, peers);
        let (_, pool) = standin.pool(small_chunks());
        let segment = store(&pool, 0, 1, &content(1, 500));
        standin.lose_at(call, on, nth, 0, ECC);
        let failed = pool.transfer().copy_segment(&segment, 1).unwrap_err();
        assert!(
            matches!(failed, TransferError::Source { ordinal: 0, fault } if fault.code == ECC),
            "{call}: {failed}"
        );
        wait_until_lost(&pool, 0);
        assert_eq!(pool.device(1).unwrap().health(), Health::Serving, "{call}");
        drop(segment);
        assert_eq!(read(&pool, &store(&pool, 1, 2, b"goes on")), b"goes on");
    }
}

#[test]
fn a_destination_that_dies_in_mid_copy_is_blamed_and_the_source_is_not() {
    for (peers, call, on, nth) in [
        (1, "cuMemcpyPeerAsync", 1, 1),
        (0, "cuMemcpyDtoHAsync_v2", 0, 2),
        (0, "cuMemcpyHtoDAsync_v2", 1, 2),
        (0, "cuMemHostAlloc", 1, 2),
        (1, "cuMemAlloc_v2", 1, 1),
    ] {
        let standin = Standin::new(2, 1 << 20);
        standin.can_read(1, 0, peers);
        let (_, pool) = standin.pool(small_chunks());
        let segment = store(&pool, 0, 1, &content(1, 500));
        standin.lose_at(call, on, nth, 1, ECC);
        let failed = pool.transfer().copy_segment(&segment, 1).unwrap_err();
        assert!(
            matches!(failed, TransferError::Destination { ordinal: 1, fault } if fault.code == ECC),
            "{call}: {failed}"
        );
        wait_until_lost(&pool, 1);
        assert_eq!(pool.device(0).unwrap().health(), Health::Serving, "{call}");
        assert_eq!(read(&pool, &segment), content(1, 500));
    }
}

#[test]
fn a_copy_that_fails_though_both_devices_answer_loses_neither() {
    let standin = Standin::new(3, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let sharing = Sharing::of(&pool);
    sharing.insert(key(1), 0, store(&pool, 0, 1, &content(1, 500)));
    sharing.insert(key(1), 1, store(&pool, 1, 1, &content(1, 500)));
    standin.fail("cuMemcpyPeerAsync", 2, 1, 719);
    let copy = sharing.obtain(key(1), 2).unwrap();
    assert_eq!(read(&pool, &copy), content(1, 500));
    assert_eq!((sharing.stats().failed, pool.health_version()), (1, 0));
}

#[test]
fn another_holder_takes_over_when_the_source_dies() {
    for peers in [1, 0] {
        let standin = Standin::new(3, 1 << 20);
        if peers == 0 {
            islands(&standin);
        }
        let (_, pool) = standin.pool(small_chunks());
        let sharing = Sharing::of(&pool);
        for on in [0, 1] {
            sharing.insert(key(1), on, store(&pool, on, 1, &content(1, 500)));
        }
        sharing.insert(key(2), 0, store(&pool, 0, 2, &content(2, 500)));
        let call = if peers == 1 { "cuMemcpyPeerAsync" } else { "cuMemcpyHtoDAsync_v2" };
        standin.lose_at(call, 2, 1, 0, ECC);
        let copy = sharing.obtain(key(1), 2).unwrap();
        assert_eq!(read(&pool, &copy), content(1, 500));
        wait_until_lost(&pool, 0);
        assert_eq!(sharing.holders(key(1)), [1, 2]);
        // What only the lost device held must be computed again, and not on that device.
        assert_eq!(sharing.obtain(key(2), 1).unwrap_err(), ObtainError::Missing);
        assert_eq!(sharing.obtain(key(1), 0).unwrap_err(), ObtainError::DeviceLost(0));
        assert!(sharing.insert(key(2), 0, copy).is_none());
        assert_eq!(sharing.stats().failed, 1);
    }
}

#[test]
fn all_who_wait_for_a_copy_to_a_dying_device_are_told() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let sharing = Sharing::of(&pool);
    sharing.insert(key(1), 0, store(&pool, 0, 1, &content(1, 500)));
    standin.lose_at("cuMemcpyPeerAsync", 1, 1, 1, ECC);
    thread::scope(|scope| {
        let callers: Vec<_> =
            (0..8).map(|_| scope.spawn(|| sharing.obtain(key(1), 1).unwrap_err())).collect();
        for caller in callers {
            assert_eq!(caller.join().unwrap(), ObtainError::DeviceLost(1));
        }
    });
    wait_until_lost(&pool, 1);
    assert_eq!(sharing.obtain(key(1), 1).unwrap_err(), ObtainError::DeviceLost(1));
    assert_eq!(sharing.holders(key(1)), [0]);
}

#[test]
fn devices_die_under_load_and_no_byte_is_wrong() {
    let standin = Standin::new(4, 1 << 20);
    islands(&standin);
    standin.can_read(1, 0, 1);
    standin.can_read(0, 1, 1);
    let (_, pool) = standin.pool(PoolSettings { verify: true, ..small_chunks() });
    let sharing = Sharing::of(&pool);
    for name in 0..8_u8 {
        let on = u32::from(name) % 4;
        sharing.insert(key(name), on, store(&pool, on, name, &content(u64::from(name), 700)));
    }
    standin.lose_at("cuMemcpyHtoDAsync_v2", 2, 20, 2, ECC);
    standin.lose_at("cuMemcpyDtoHAsync_v2", 3, 30, 3, 700);
    thread::scope(|scope| {
        for number in 0..12_u32 {
            let (sharing, pool) = (&sharing, &pool);
            scope.spawn(move || {
                let serving =
                    |on| pool.device(on).is_some_and(|device| device.health() == Health::Serving);
                for step in (0..5000).take_while(|step| *step < 32 || serving(2) || serving(3)) {
                    let name = ((number + step) % 8) as u8;
                    let on = (number + step / 8) % 4;
                    let device = pool.device(on).unwrap();
                    let copy = match sharing.obtain(key(name), on) {
                        Ok(copy) => copy,
                        Err(ObtainError::Missing) => {
                            // Computed again; the device may die meanwhile.
                            let bytes = content(u64::from(name), 700);
                            let job = move |owner: &mut Owner| owner.store(key(name), &bytes, None);
                            let Ok(Ok(copy)) = device.run(job).wait() else { continue };
                            let Some(copy) = sharing.insert(key(name), on, copy) else { continue };
                            copy
                        }
                        Err(_) => continue,
                    };
                    let again = copy.clone();
                    // The device may die before it is read.
                    if let Ok(Ok(bytes)) = device.run(move |owner| owner.read(&again)).wait() {
                        assert_eq!(bytes, content(u64::from(name), 700));
                    }
                    if step % 5 == 0 {
                        sharing.remove(key(name), on);
                    }
                }
            });
        }
    });
    for ordinal in [2, 3] {
        wait_until_lost(&pool, ordinal);
        assert_eq!(sharing.keys_on(ordinal), []);
    }
    for ordinal in [0, 1] {
        assert_eq!(read(&pool, &store(&pool, ordinal, 99, b"goes on")), b"goes on");
    }
}
