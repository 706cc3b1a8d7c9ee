use cudarc::driver::CudaContext;
use sleuth_cuda::{DeviceSlice, DeviceSliceMut, PoolSettings, Route, TransferError};

use crate::harness::{Standin, content, key, read, small_chunks};

/// Memory of cudarc's, and so of candle's, is in the same primary contexts.
#[test]
fn memory_of_cudarc_is_copied_directly_and_through_the_host() {
    for (peers, expected) in [(1, Route::Peer), (0, Route::Host)] {
        let standin = Standin::new(2, 1 << 20);
        // cudarc calls from this thread.
        standin.strict(0);
        standin.can_read(1, 0, peers);
        let (_, pool) = standin.pool(small_chunks());
        let streams = [0, 1].map(|ordinal| CudaContext::new(ordinal).unwrap().default_stream());
        let written = content(5, 1001);
        let from = streams[0].clone_htod(&written).unwrap();
        let mut to = streams[1].alloc_zeros::<u8>(1001).unwrap();
        let route = pool
            .transfer()
            .copy(&DeviceSlice::of(&from).unwrap(), &mut DeviceSliceMut::of(&mut to).unwrap())
            .unwrap();
        assert_eq!(route, expected);
        assert_eq!(streams[1].clone_dtoh(&to).unwrap(), written);
    }
}

#[test]
fn tensors_become_a_segment_and_a_segment_becomes_tensors() {
    let standin = Standin::new(2, 1 << 20);
    standin.strict(0);
    let (_, pool) = standin.pool(PoolSettings { verify: true, ..small_chunks() });
    let layers: Vec<Vec<f32>> = vec![vec![1.5; 33], vec![-2.0; 7], vec![0.25; 100]];
    let expected: Vec<u8> =
        layers.iter().flatten().flat_map(|value: &f32| value.to_le_bytes()).collect();
    let segment = pool
        .device(0)
        .unwrap()
        .run(move |owner| {
            let stream = CudaContext::new(0).unwrap().default_stream();
            let tensors: Vec<_> =
                layers.iter().map(|layer| stream.clone_htod(layer).unwrap()).collect();
            let parts: Vec<_> = tensors.iter().map(|t| DeviceSlice::of(t).unwrap()).collect();
            owner.gather(key(1), &parts, None).unwrap()
        })
        .wait()
        .unwrap();
    assert_eq!(segment.checksum(), Some(blake3::hash(&expected)));
    let (copy, _) = pool.transfer().copy_segment(&segment, 1).unwrap();
    let (first, beyond) = pool
        .device(1)
        .unwrap()
        .run(move |owner| {
            let stream = CudaContext::new(1).unwrap().default_stream();
            let mut tensor = stream.alloc_zeros::<f32>(7).unwrap();
            let mut to = DeviceSliceMut::of(&mut tensor).unwrap();
            owner.fill(&mut to, &copy, 33 * 4).unwrap();
            let beyond = owner.fill(&mut to, &copy, copy.bytes() - 4).is_err();
            (stream.clone_dtoh(&tensor).unwrap(), beyond)
        })
        .wait()
        .unwrap();
    assert_eq!((first, beyond), (vec![-2.0; 7], true));
}

#[test]
fn a_part_is_copied_and_unequal_lengths_are_refused() {
    let standin = Standin::new(1, 1 << 20);
    standin.strict(0);
    let (_, pool) = standin.pool(small_chunks());
    let stream = CudaContext::new(0).unwrap().default_stream();
    let from = stream.clone_htod(&[1_u8, 2, 3, 4, 5]).unwrap();
    let mut to = stream.alloc_zeros::<u8>(2).unwrap();
    let whole = DeviceSlice::of(&from).unwrap();
    let mut target = DeviceSliceMut::of(&mut to).unwrap();
    let unequal = pool.transfer().copy(&whole, &mut target).unwrap_err();
    assert_eq!(unequal, TransferError::Unequal { from: 5, to: 2 });
    assert!(whole.part(4, 2).is_none() && whole.part(u64::MAX, 2).is_none());
    let part = whole.part(2, 2).unwrap();
    assert_eq!(pool.transfer().copy(&part, &mut target).unwrap(), Route::Local);
    assert_eq!(stream.clone_dtoh(&to).unwrap(), [3, 4]);
}

#[test]
fn a_job_that_leaves_another_context_current_does_no_harm() {
    let standin = Standin::new(2, 1 << 20);
    standin.strict(0);
    let (_, pool) = standin.pool(small_chunks());
    let segment = pool
        .device(0)
        .unwrap()
        .run(|owner| {
            let other = CudaContext::new(1).unwrap().default_stream();
            let elsewhere = other.clone_htod(&[9_u8; 100]).unwrap();
            let segment = owner.store(key(1), b"bytes", None).unwrap();
            drop(elsewhere);
            segment
        })
        .wait()
        .unwrap();
    assert_eq!((standin.used(0), standin.used(1)), (512, 0));
    assert_eq!(read(&pool, &segment), b"bytes");
}
