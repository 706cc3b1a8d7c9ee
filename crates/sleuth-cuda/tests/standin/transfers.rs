use std::thread;

use sleuth_cuda::{Exhausted, PoolSettings, Route, TransferError, TransferStats};

use crate::harness::{Copies, Standin, content, read, small_chunks, store};

/// Around the chunk of 64 bytes and its double, odd ones and none.
const SIZES: [usize; 14] = [0, 1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 193, 1000, 4096];

/// Nothing reaches anything directly.
fn no_peers(standin: &Standin) {
    for reader in 0..4 {
        for owner in 0..4 {
            standin.can_read(reader, owner, 0);
        }
    }
}

#[test]
fn bytes_arrive_directly() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let transfer = pool.transfer();
    for bytes in SIZES {
        let written = content(bytes as u64, bytes);
        let segment = store(&pool, 0, 1, &written);
        let (copy, route) = transfer.copy_segment(&segment, 1).unwrap();
        assert_eq!((copy.ordinal(), route), (1, Route::Peer));
        assert_eq!((copy.key(), copy.bytes()), (segment.key(), segment.bytes()));
        assert_eq!(read(&pool, &copy), written, "{bytes} bytes");
    }
    let total = SIZES.iter().sum::<usize>() as u64;
    let copies = SIZES.len() as u64;
    let expected =
        TransferStats { peer_copies: copies, peer_bytes: total, ..TransferStats::default() };
    assert_eq!(transfer.stats(), expected);
    let Copies { direct, staged, pinned, .. } = standin.copies();
    // Of nothing nothing is copied.
    assert_eq!((direct, staged, pinned), (copies - 1, 0, 0));
    assert_eq!(standin.calls("cuCtxEnablePeerAccess", 1), 1);
}

#[test]
fn bytes_arrive_through_pinned_memory() {
    let standin = Standin::new(2, 1 << 20);
    no_peers(&standin);
    let (_, pool) = standin.pool(small_chunks());
    let transfer = pool.transfer();
    for bytes in SIZES {
        let written = content(bytes as u64, bytes);
        let segment = store(&pool, 1, 1, &written);
        let (copy, route) = transfer.copy_segment(&segment, 0).unwrap();
        assert_eq!((copy.ordinal(), route), (0, Route::Host));
        assert_eq!(read(&pool, &copy), written, "{bytes} bytes");
    }
    let total = SIZES.iter().sum::<usize>() as u64;
    let expected = TransferStats {
        host_copies: SIZES.len() as u64,
        host_bytes: total,
        ..TransferStats::default()
    };
    assert_eq!(transfer.stats(), expected);
    let chunks: usize = SIZES.iter().map(|bytes| bytes.div_ceil(64)).sum();
    let copies = standin.copies();
    // Down and up, once each.
    assert_eq!((copies.pinned, copies.direct + copies.staged), (2 * chunks as u64, 0));
    assert_eq!(standin.calls("cuMemHostAlloc", 0), 2, "two buffers serve all copies");
    assert_eq!(standin.calls("cuMemHostAlloc", 1), 0);
}

#[test]
fn a_copy_on_its_own_device_takes_the_short_way() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let segment = store(&pool, 0, 1, b"keys and values");
    let (copy, route) = pool.transfer().copy_segment(&segment, 0).unwrap();
    assert_eq!(route, Route::Local);
    assert_ne!(copy.address(), segment.address());
    assert_eq!(read(&pool, &copy), b"keys and values");
    assert_eq!(pool.transfer().stats(), TransferStats::default());
}

#[test]
fn copies_cross_in_all_directions_at_once() {
    let standin = Standin::new(4, 1 << 20);
    // Between 0 and 1, and 2 and 3 directly, else through the host.
    no_peers(&standin);
    for (reader, owner) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        standin.can_read(reader, owner, 1);
    }
    let (_, pool) = standin.pool(small_chunks());
    thread::scope(|scope| {
        for from in 0..4_u32 {
            for to in (0..4_u32).filter(|to| *to != from) {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..15 {
                        let written = content(u64::from(from * 100 + to * 10 + round), 700);
                        let segment = store(pool, from, 1, &written);
                        let (copy, _) = pool.transfer().copy_segment(&segment, to).unwrap();
                        // The original may go as soon as there is a copy.
                        drop(segment);
                        assert_eq!(read(pool, &copy), written);
                    }
                });
            }
        }
    });
    let stats = pool.transfer().stats();
    assert_eq!((stats.peer_copies, stats.host_copies), (4 * 15, 8 * 15));
    assert_eq!(standin.copies().staged, 0);
}

#[test]
fn access_that_is_withdrawn_is_not_missed() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let segment = store(&pool, 0, 1, &content(1, 500));
    let transfer = pool.transfer();
    assert_eq!(transfer.copy_segment(&segment, 1).unwrap().1, Route::Peer);
    standin.withdraw(1, 0);
    let (copy, route) = transfer.copy_segment(&segment, 1).unwrap();
    assert_eq!(route, Route::Host);
    assert_eq!(read(&pool, &copy), content(1, 500));
    assert_eq!(pool.peers().pairs().collect::<Vec<_>>(), [(1, 0)]);
    // It is not tried again.
    let tried = standin.calls("cuMemcpyPeerAsync", 1);
    assert_eq!(transfer.copy_segment(&segment, 1).unwrap().1, Route::Host);
    assert_eq!(standin.calls("cuMemcpyPeerAsync", 1), tried);
}

#[test]
fn access_that_cannot_be_enabled_falls_back_too() {
    for code in [217, 711, 2] {
        let standin = Standin::new(2, 1 << 20);
        let (_, pool) = standin.pool(small_chunks());
        standin.fail("cuCtxEnablePeerAccess", 1, 1, code);
        let segment = store(&pool, 0, 1, &content(1, 500));
        let (copy, route) = pool.transfer().copy_segment(&segment, 1).unwrap();
        assert_eq!(route, Route::Host, "after {code}");
        assert_eq!(read(&pool, &copy), content(1, 500));
    }
}

#[test]
fn a_full_destination_is_no_fault() {
    let standin = Standin::new(2, 128 << 10);
    let (_, pool) = standin.pool(small_chunks());
    let segment = store(&pool, 0, 1, &content(1, 100 << 10));
    let taken = store(&pool, 1, 2, &content(2, 100 << 10));
    let refused = pool.transfer().copy_segment(&segment, 1).unwrap_err();
    let exhausted = Exhausted { device: 1, wanted: 100 << 10, free: 28 << 10 };
    assert_eq!(refused, TransferError::Exhausted(exhausted));
    drop(taken);
    assert!(pool.transfer().copy_segment(&segment, 1).is_ok());
}

#[test]
fn a_copy_with_other_bytes_is_used_by_nobody() {
    for (peers, call, on) in [
        (1, "cuMemcpyPeerAsync", 1),
        (0, "cuMemcpyDtoHAsync_v2", 0),
        (0, "cuMemcpyHtoDAsync_v2", 1),
    ] {
        let standin = Standin::new(2, 1 << 20);
        standin.can_read(1, 0, peers);
        let settings = PoolSettings { verify: true, ..small_chunks() };
        let (_, pool) = standin.pool(settings);
        let segment = store(&pool, 0, 1, &content(1, 500));
        standin.spoil(call, on, 1);
        let refused = pool.transfer().copy_segment(&segment, 1).unwrap_err();
        assert_eq!(refused, TransferError::Corrupt { from: 0, to: 1 }, "{call}");
        let (copy, _) = pool.transfer().copy_segment(&segment, 1).unwrap();
        assert_eq!(read(&pool, &copy), content(1, 500));
    }
}

#[test]
fn without_checksums_a_wrong_bit_would_not_be_seen() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let segment = store(&pool, 0, 1, &content(1, 500));
    standin.spoil("cuMemcpyPeerAsync", 1, 1);
    let (copy, _) = pool.transfer().copy_segment(&segment, 1).unwrap();
    assert_ne!(read(&pool, &copy), content(1, 500));
}

#[test]
fn what_cannot_be_asked_for_is_refused() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(small_chunks());
    let segment = store(&pool, 0, 1, b"bytes");
    let transfer = pool.transfer();
    assert_eq!(transfer.copy_segment(&segment, 9).unwrap_err(), TransferError::NoDevice(9));
    let (asked, copy) = (transfer.clone(), segment.clone());
    let inside = pool.device(1).unwrap().run(move |_| asked.copy_segment(&copy, 1).unwrap_err());
    assert_eq!(inside.wait().unwrap(), TransferError::OnOwnerThread);
    drop(pool);
    assert_eq!(transfer.copy_segment(&segment, 1).unwrap_err(), TransferError::Closed);
}
