use std::sync::{Arc, Barrier, mpsc};
use std::thread;
use std::time::Duration;

use sleuth_cuda::{Exhausted, ObtainError, PoolSettings, Sharing, SharingStats, TransferError};

use crate::harness::{Standin, content, key, read, small_chunks, store, until};

#[test]
fn ten_callers_at_once_cause_one_copy() {
    let standin = Standin::new(2, 1 << 20);
    standin.delay("cuMemcpyPeerAsync", Duration::from_millis(20));
    let (_, pool) = standin.pool(small_chunks());
    let sharing = Sharing::of(&pool);
    let written = content(1, 5000);
    sharing.insert(key(1), 0, store(&pool, 0, 1, &written)).unwrap();
    let together = Barrier::new(10);
    let copies: Vec<_> = thread::scope(|scope| {
        let obtain = || {
            together.wait();
            sharing.obtain(key(1), 1).unwrap()
        };
        let callers: Vec<_> = (0..10).map(|_| scope.spawn(obtain)).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    assert!(copies.iter().all(|copy| copy.address() == copies[0].address()));
    assert_eq!(read(&pool, &copies[0]), written);
    assert_eq!(standin.calls("cuMemcpyPeerAsync", 1), 1);
    let stats = sharing.stats();
    assert_eq!((stats.peer_copies, stats.peer_bytes, stats.failed), (1, 5000, 0));
    assert_eq!(sharing.holders(key(1)), [0, 1]);
    assert_eq!(sharing.keys_on(1), [key(1)]);
}

#[test]
fn many_threads_keys_and_devices_copy_each_pair_once() {
    let standin = Standin::new(4, 1 << 20);
    // Two islands.
    for (reader, owner) in [(0, 2), (0, 3), (1, 2), (1, 3), (2, 0), (2, 1), (3, 0), (3, 1)] {
        standin.can_read(reader, owner, 0);
    }
    let (_, pool) = standin.pool(PoolSettings { verify: true, ..small_chunks() });
    let sharing = Sharing::of(&pool);
    for name in 0..6_u8 {
        let on = u32::from(name) % 4;
        sharing.insert(key(name), on, store(&pool, on, name, &content(u64::from(name), 900)));
    }
    thread::scope(|scope| {
        for number in 0..16_u32 {
            let (sharing, pool) = (&sharing, &pool);
            scope.spawn(move || {
                for step in 0..24 {
                    let name = ((number + step) % 6) as u8;
                    let copy = sharing.obtain(key(name), (number + step / 6) % 4).unwrap();
                    assert_eq!(read(pool, &copy), content(u64::from(name), 900));
                }
            });
        }
    });
    let stats = sharing.stats();
    // Six keys on four devices, of which one held each from the start.
    assert_eq!(stats.peer_copies + stats.host_copies, 6 * 3);
    assert_eq!((stats.failed, stats.corrupt), (0, 0));
    let copies = standin.copies();
    assert_eq!((copies.direct, copies.staged), (stats.peer_copies, 0));
}

#[test]
fn a_key_that_nobody_holds_is_missing() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let sharing = Sharing::of(&pool);
    assert_eq!(sharing.obtain(key(1), 0).unwrap_err(), ObtainError::Missing);
    sharing.insert(key(1), 0, store(&pool, 0, 1, b"bytes"));
    assert_eq!(sharing.obtain(key(1), 0).unwrap().ordinal(), 0);
    assert!(sharing.remove(key(1), 0).is_some());
    assert_eq!(sharing.obtain(key(1), 0).unwrap_err(), ObtainError::Missing);
}

#[test]
fn a_full_device_refuses_and_takes_it_once_there_is_room() {
    let standin = Standin::new(2, 128 << 10);
    let (_, pool) = standin.pool(small_chunks());
    let sharing = Sharing::of(&pool);
    sharing.insert(key(1), 0, store(&pool, 0, 1, &content(1, 100 << 10)));
    sharing.insert(key(2), 1, store(&pool, 1, 2, &content(2, 100 << 10)));
    let exhausted = Exhausted { device: 1, wanted: 100 << 10, free: 28 << 10 };
    assert_eq!(sharing.obtain(key(1), 1).unwrap_err(), ObtainError::Exhausted(exhausted));
    drop(sharing.remove(key(2), 1));
    assert_eq!(read(&pool, &sharing.obtain(key(1), 1).unwrap()), content(1, 100 << 10));
    assert_eq!(sharing.stats().failed, 1);
}

#[test]
fn a_corrupt_copy_is_replaced_by_another_holders() {
    let standin = Standin::new(3, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings { verify: true, ..small_chunks() });
    let sharing = Sharing::of(&pool);
    let first = store(&pool, 0, 1, &content(1, 500));
    sharing.insert(key(1), 0, first);
    sharing.obtain(key(1), 1).unwrap();
    standin.spoil("cuMemcpyPeerAsync", 2, 1);
    let copy = sharing.obtain(key(1), 2).unwrap();
    assert_eq!(read(&pool, &copy), content(1, 500));
    let stats = sharing.stats();
    assert_eq!((stats.corrupt, stats.failed, stats.peer_copies), (1, 1, 2));
    // The other holder sent it: from 1, since 0 had been asked.
    assert_eq!(standin.calls("cuMemcpyPeerAsync", 2), 2);
}

#[test]
fn withdrawn_access_is_learnt_and_the_host_takes_over() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let sharing = Sharing::of(&pool);
    sharing.insert(key(1), 0, store(&pool, 0, 1, &content(1, 300)));
    sharing.insert(key(2), 0, store(&pool, 0, 2, &content(2, 300)));
    sharing.obtain(key(1), 1).unwrap();
    standin.withdraw(1, 0);
    assert_eq!(read(&pool, &sharing.obtain(key(2), 1).unwrap()), content(2, 300));
    let expected = SharingStats {
        peer_copies: 1,
        peer_bytes: 300,
        host_copies: 1,
        host_bytes: 300,
        ..SharingStats::default()
    };
    assert_eq!(sharing.stats(), expected);
}

#[test]
fn an_owner_takes_what_is_there_and_waits_for_no_copy() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let sharing = Sharing::of(&pool);
    sharing.insert(key(1), 0, store(&pool, 0, 1, b"bytes"));
    let (let_go, held) = mpsc::channel::<()>();
    let holding = pool.device(1).unwrap().run(move |_| held.recv().unwrap());
    thread::scope(|scope| {
        let copying = scope.spawn(|| sharing.obtain(key(1), 1).unwrap());
        // The copy is under way: its first step waits for the owner of 1.
        until(|| pool.device(1).unwrap().waiting() >= 1);
        let asked = Arc::clone(&sharing);
        let inside = pool.device(0).unwrap().run(move |_| {
            let local = asked.obtain(key(1), 0).map(|copy| copy.ordinal());
            (local, asked.obtain(key(1), 1).map(drop), asked.obtain(key(2), 0).map(drop))
        });
        let refused = ObtainError::Refused(TransferError::OnOwnerThread);
        let expected = (Ok(0), Err(refused), Err(ObtainError::Missing));
        assert_eq!(inside.wait().unwrap(), expected);
        let_go.send(()).unwrap();
        holding.wait().unwrap();
        copying.join().unwrap();
    });
}
