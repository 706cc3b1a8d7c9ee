use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use sleuth_cuda::{Owner, Pool, PoolSettings, Route, Unfinished};

use crate::harness::{Standin, content, read, small_chunks, store, until};

/// Keeps a device busy until it is let go.
fn hold(pool: &Pool, ordinal: u32) -> (mpsc::Sender<()>, sleuth_cuda::Pending<()>) {
    let (let_go, held) = mpsc::channel::<()>();
    let (began, begun) = mpsc::channel();
    let pending = pool.device(ordinal).unwrap().run(move |_| {
        began.send(()).unwrap();
        let _ = held.recv();
    });
    begun.recv().unwrap();
    (let_go, pending)
}

#[test]
fn jobs_of_a_device_are_done_in_order_on_its_one_thread() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings { queue: 8, ..PoolSettings::default() });
    let seen = Arc::new(Mutex::new(Vec::new()));
    let pending: Vec<_> = (0..200)
        .map(|number| {
            let seen = Arc::clone(&seen);
            pool.device(number % 2).unwrap().run(move |owner: &mut Owner| {
                let name = thread::current().name().unwrap().to_owned();
                seen.lock().unwrap().push((owner.ordinal(), number, name, thread::current().id()));
            })
        })
        .collect();
    for job in pending {
        job.wait().unwrap();
    }
    for ordinal in [0, 1] {
        let seen = seen.lock().unwrap();
        let of: Vec<_> = seen.iter().filter(|job| job.0 == ordinal).collect();
        assert!(of.is_sorted_by_key(|job| job.1) && of.len() == 100);
        assert!(of.iter().all(|job| job.3 == of[0].3 && job.2 == format!("cuda-{ordinal}")));
    }
}

#[test]
fn a_queue_takes_as_many_as_it_holds_and_gives_the_next_back() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings { queue: 2, ..PoolSettings::default() });
    let device = pool.device(0).unwrap();
    let (let_go, held) = hold(&pool, 0);
    let waiting: Vec<_> = (0..2).map(|n| device.try_run(move |_| n).unwrap()).collect();
    assert_eq!(device.waiting(), 2);
    let full = device.try_run(|_| 2).unwrap_err();
    assert_eq!(full.to_string(), "the queue of device 0 is full");
    // Who does not mind blocks until there is room.
    let blocked = thread::spawn({
        let device = device.clone();
        move || device.run(full.job).wait()
    });
    let_go.send(()).unwrap();
    held.wait().unwrap();
    assert_eq!(waiting.into_iter().map(|job| job.wait().unwrap()).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(blocked.join().unwrap().unwrap(), 2);
}

#[test]
fn steps_of_a_copy_pass_the_jobs_that_wait() {
    let standin = Standin::new(2, 1 << 20);
    standin.can_read(1, 0, 0);
    let (_, pool) = standin.pool(small_chunks());
    let segment = store(&pool, 0, 1, &content(1, 500));
    let device = pool.device(1).unwrap();
    let (let_go, held) = hold(&pool, 1);
    // It waits already when the copy's first step comes, which allocates.
    let books = device.clone();
    let job = device.run(move |_| books.budget().used);
    let copy = thread::scope(|scope| {
        let copying = scope.spawn(|| pool.transfer().copy_segment(&segment, 1).unwrap().0);
        until(|| device.waiting() >= 2);
        let_go.send(()).unwrap();
        held.wait().unwrap();
        copying.join().unwrap()
    });
    assert_eq!(job.wait().unwrap(), 512);
    assert_eq!(read(&pool, &copy), content(1, 500));
}

#[test]
fn a_panic_fails_its_job_alone() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    let device = pool.device(0).unwrap();
    let failed = device.run(|_| -> u8 { panic!("no such layer") }).wait().unwrap_err();
    assert_eq!(failed.to_string(), "a job on device 0 panicked: no such layer");
    assert_eq!(device.run(|_| 7).wait().unwrap(), 7);
}

#[test]
fn dropping_the_pool_ends_the_running_job_and_sends_the_others_back() {
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    let device = pool.device(0).unwrap().clone();
    let (let_go, held) = hold(&pool, 0);
    let waiting = device.run(|_| 41);
    let closing = thread::spawn(move || drop(pool));
    let Err(Unfinished::Closed { job: Some(_) }) = waiting.wait() else { panic!("it was done") };
    let_go.send(()).unwrap();
    held.wait().unwrap();
    closing.join().unwrap();
    assert!(matches!(device.run(|_| 1).wait(), Err(Unfinished::Closed { .. })));
    drop(standin);
}

#[test]
fn no_context_goes_while_another_device_copies_from_it() {
    let standin = Standin::new(2, 1 << 20);
    standin.delay("cuCtxEnablePeerAccess", Duration::from_millis(50));
    let (_, pool) = standin.pool(PoolSettings::default());
    let segment = store(&pool, 0, 1, &content(1, 500));
    let transfer = pool.transfer();
    let copying = thread::spawn(move || transfer.copy_segment(&segment, 1).map(|copied| copied.1));
    until(|| standin.calls("cuCtxEnablePeerAccess", 1) >= 1);
    // Device 0 has nothing to do and would end at once.
    drop(pool);
    assert_eq!(copying.join().unwrap(), Ok(Route::Peer));
}

#[test]
fn a_pool_may_be_dropped_by_its_own_job() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    let device = pool.device(0).unwrap().clone();
    let other = pool.device(1).unwrap().clone();
    device.run(move |_| drop(pool)).wait().unwrap();
    assert!(matches!(other.run(|_| 1).wait(), Err(Unfinished::Closed { .. })));
    // Its owner ends by itself; wait until its context is gone.
    until(|| standin.calls("cuDevicePrimaryCtxRelease_v2", -1) >= 4);
}

#[test]
fn an_owner_waits_for_nobodys_job() {
    let standin = Standin::new(2, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    for asked in [0, 1] {
        let device = pool.device(asked).unwrap().clone();
        let answer = pool.device(0).unwrap().run(move |_| device.run(|_| 1).wait().is_err());
        assert!(answer.wait().unwrap());
    }
}

#[test]
fn a_result_can_be_awaited() {
    struct Unpark(thread::Thread, AtomicUsize);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.unpark();
        }
    }
    let standin = Standin::new(1, 1 << 20);
    let (_, pool) = standin.pool(PoolSettings::default());
    let (let_go, held) = hold(&pool, 0);
    let mut pending = pin!(pool.device(0).unwrap().run(|owner| owner.memory().unwrap()));
    let woken = Arc::new(Unpark(thread::current(), AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&woken));
    let mut cx = Context::from_waker(&waker);
    assert!(pending.as_mut().poll(&mut cx).is_pending());
    let_go.send(()).unwrap();
    held.wait().unwrap();
    let memory = loop {
        match pending.as_mut().poll(&mut cx) {
            Poll::Ready(memory) => break memory.unwrap(),
            Poll::Pending => thread::park(),
        }
    };
    assert_eq!(memory, (1 << 20, 1 << 20));
    assert!(woken.1.load(Ordering::SeqCst) >= 1);
}
