mod devices;

use sleuth_core::Pixels;

use super::*;
use crate::ModelFailure;
use crate::fake::{Act, FakeModel, IMAGE_TOKENS, KEPT_BYTES, Remote, logit};

/// An item of group `group`; its response tells it apart.
fn item(group: u8, response: &[u32]) -> Prepared {
    Prepared {
        pixels: Pixels::try_new(1, 1, vec![0.0; 3].into()).unwrap(),
        image_key: [group; 32],
        prompt: vec![1, 2].into(),
        response: response.into(),
    }
}

/// Tokens of a prefix of [`item`].
const PREFIX: usize = IMAGE_TOKENS + 2;

async fn engine(script: impl IntoIterator<Item = Act>) -> (Engine, Remote) {
    engine_with(script, EngineSettings::default()).await
}

async fn engine_with(
    script: impl IntoIterator<Item = Act>,
    settings: EngineSettings,
) -> (Engine, Remote) {
    let (model, remote) = FakeModel::new(script);
    (Engine::start(model.builder(), settings).await.unwrap(), remote)
}

async fn begun(remote: &Remote, batches: usize) {
    let remote = remote.clone();
    tokio::task::spawn_blocking(move || remote.wait_for_batches(batches)).await.unwrap();
}

/// Keeps the worker busy with an item of group 0 until the gate opens.
async fn busy(engine: &Engine, remote: &Remote) -> tokio::task::JoinHandle<bool> {
    remote.close_gate();
    let first = tokio::spawn({
        let submission = engine.submit(item(0, &[0]), Terms::default(), None);
        async move { submission.await.is_ok() }
    });
    begun(remote, 1).await;
    first
}

#[tokio::test]
async fn what_arrives_while_a_batch_runs_forms_the_next_one() {
    let (engine, remote) = engine([]).await;
    let first = busy(&engine, &remote).await;
    let items = [item(1, &[1]), item(2, &[2, 3]), item(1, &[4])];
    let waiting = items.clone().map(|item| engine.submit(item, Terms::default(), None));
    remote.open_gate();
    for (submission, item) in waiting.into_iter().zip(&items) {
        let expected: Vec<f32> = item.response.iter().map(|&id| logit(id)).collect();
        assert_eq!(submission.await.unwrap().logits, expected);
    }
    assert!(first.await.unwrap());
    let [one, three, two] = items;
    assert_eq!(remote.batches()[1], [one, two, three]);
    let stats = engine.stats();
    assert_eq!((stats.batches, stats.scored), (2, 4));
    assert_eq!(stats.tokens as usize, (PREFIX + 1) + (2 * PREFIX + 4));
    assert_eq!((stats.queued_items, stats.queued_tokens, stats.running_items), (0, 0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_when_to_retry() {
    let settings = EngineSettings { max_queue_items: 1, ..EngineSettings::default() };
    let (engine, remote) = engine_with([], settings).await;
    let first = busy(&engine, &remote).await;
    let second = engine.submit(item(1, &[1]), Terms::default(), None);
    assert!(matches!(engine.check_room(), Err(EngineError::QueueFull { .. })));
    let Err(EngineError::QueueFull { retry_after }) =
        engine.submit(item(1, &[1]), Terms::default(), None).await
    else {
        panic!("the queue took more than it holds");
    };
    assert!(retry_after > Duration::ZERO);
    drop(second);
    assert_eq!(engine.check_room(), Ok(()));
    let third = engine.submit(item(1, &[1]), Terms::default(), None);
    remote.open_gate();
    assert!(third.await.is_ok() && first.await.unwrap());
    assert_eq!((engine.stats().refused, engine.stats().cancelled), (2, 1));
}

#[tokio::test]
async fn a_queue_full_of_tokens_refuses_too() {
    let settings = EngineSettings { max_queue_tokens: PREFIX + 3, ..EngineSettings::default() };
    let (engine, remote) = engine_with([], settings).await;
    let first = busy(&engine, &remote).await;
    let second = engine.submit(item(1, &[1, 1]), Terms::default(), None);
    assert_eq!(engine.check_room(), Ok(()));
    assert!(matches!(
        engine.submit(item(2, &[1]), Terms::default(), None).await,
        Err(EngineError::QueueFull { .. })
    ));
    let third = engine.submit(item(1, &[1]), Terms::default(), None);
    remote.open_gate();
    assert!(second.await.is_ok() && third.await.is_ok() && first.await.unwrap());
}

#[tokio::test]
async fn a_dropped_item_never_reaches_the_model() {
    let (engine, remote) = engine([]).await;
    let first = busy(&engine, &remote).await;
    let given_up = engine.submit(item(1, &[1]), Terms::default(), None);
    let kept = engine.submit(item(2, &[2]), Terms::default(), None);
    drop(given_up);
    assert_eq!(engine.stats().queued_items, 1);
    remote.open_gate();
    assert!(kept.await.is_ok() && first.await.unwrap());
    assert_eq!(remote.batches()[1], [item(2, &[2])]);
    assert_eq!(engine.stats().cancelled, 1);
}

#[tokio::test]
async fn a_running_item_that_is_dropped_is_counted_as_abandoned() {
    let (engine, remote) = engine([]).await;
    let first = busy(&engine, &remote).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    remote.open_gate();
    assert!(engine.submit(item(1, &[1]), Terms::default(), None).await.is_ok());
    assert_eq!((engine.stats().abandoned, engine.stats().scored), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_late_item_gets_its_answer_on_time_and_costs_nothing() {
    let (engine, remote) = engine([]).await;
    let first = busy(&engine, &remote).await;
    let began = Instant::now();
    let late = engine.submit(item(1, &[1]), Terms::default(), Some(began + Duration::from_secs(5)));
    assert_eq!(late.await, Err(EngineError::Deadline));
    assert_eq!(began.elapsed().as_secs(), 5);
    remote.open_gate();
    assert!(first.await.unwrap());
    assert_eq!(remote.batches().len(), 1);
    assert_eq!((engine.stats().expired, engine.stats().queued_items), (1, 0));
}

#[tokio::test]
async fn the_worker_itself_drops_what_is_late() {
    let (engine, remote) = engine([]).await;
    let first = busy(&engine, &remote).await;
    // Not polled until the worker is done, so that its own timer cannot answer first.
    let late = engine.submit(item(1, &[1]), Terms::default(), Some(Instant::now()));
    let other = engine.submit(item(2, &[1]), Terms::default(), None);
    remote.open_gate();
    assert!(first.await.unwrap() && other.await.is_ok());
    assert_eq!(engine.stats().expired, 1);
    assert_eq!(late.await, Err(EngineError::Deadline));
    assert_eq!(remote.batches().len(), 2);
}

#[tokio::test]
async fn a_panic_fails_its_batch_and_the_worker_goes_on() {
    let settings = EngineSettings { max_panics_in_a_row: 2, ..EngineSettings::default() };
    let script = [Act::Panic, Act::Score, Act::Panic, Act::Panic, Act::Score];
    let (engine, _) = engine_with(script, settings).await;
    let health = engine.health();
    let expected = [
        (false, Health::Healthy),
        (true, Health::Healthy),
        (false, Health::Healthy),
        (false, Health::Unhealthy),
        (true, Health::Healthy),
    ];
    for (n, (ok, after)) in expected.into_iter().enumerate() {
        let verdict = engine.submit(item(1, &[1]), Terms::default(), None).await;
        if ok {
            assert!(verdict.is_ok(), "{n}");
        } else {
            assert_eq!(verdict, Err(EngineError::WorkerFailed), "{n}");
        }
        assert_eq!(*health.borrow(), after, "{n}");
    }
    assert_eq!((engine.stats().panics, engine.stats().failed), (3, 3));
}

#[tokio::test]
async fn one_items_failure_does_not_touch_its_neighbours() {
    let failures =
        vec![(0, ModelFailure::NotFinite), (2, ModelFailure::Forward("shapes differ".to_owned()))];
    let (engine, remote) = engine([Act::Score, Act::Fail(failures)]).await;
    let first = busy(&engine, &remote).await;
    let [a, b, c] = [1, 2, 3].map(|id| engine.submit(item(1, &[id]), Terms::default(), None));
    remote.open_gate();
    assert_eq!(a.await, Err(EngineError::NotFinite));
    assert_eq!(b.await.unwrap().logits, [logit(2)]);
    assert_eq!(c.await, Err(EngineError::WorkerFailed));
    assert!(first.await.unwrap());
}

#[tokio::test]
async fn logits_that_are_wrong_never_pass() {
    let script = [
        Act::Give(vec![1.0, f32::NAN]),
        Act::Give(vec![f32::NEG_INFINITY, 1.0]),
        Act::Give(vec![1.0]),
        Act::Nothing,
        Act::Give(vec![1.0, 2.0]),
    ];
    let (engine, _) = engine(script).await;
    for expected in [
        Err(EngineError::NotFinite),
        Err(EngineError::NotFinite),
        Err(EngineError::WorkerFailed),
        Err(EngineError::WorkerFailed),
        Ok(vec![1.0, 2.0]),
    ] {
        let got = engine.submit(item(1, &[1, 2]), Terms::default(), None).await;
        assert_eq!(got.map(|scores| scores.logits), expected);
    }
}

#[tokio::test]
async fn a_reservation_holds_room_and_gives_it_back() {
    let settings = EngineSettings { max_queue_items: 1, ..EngineSettings::default() };
    let (engine, _) = engine_with([], settings).await;
    let wanted = item(1, &[1, 2]);
    let reserve =
        || engine.reserve(wanted.image_key, Arc::clone(&wanted.prompt), 2, Terms::default());
    let reservation = reserve().unwrap();
    assert!(matches!(reserve(), Err(EngineError::QueueFull { .. })));
    assert_eq!(engine.stats().queued_tokens, PREFIX + 2);
    drop(reservation);
    let reservation = reserve().unwrap();
    assert!(reservation.submit(wanted.clone(), None).await.is_ok());
    assert_eq!((engine.stats().queued_items, engine.stats().queued_tokens), (0, 0));
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_and_takes_nothing_new() {
    let (engine, remote) = engine([]).await;
    let first = busy(&engine, &remote).await;
    let queued = tokio::spawn(engine.submit(item(1, &[1]), Terms::default(), None));
    let wanted = item(2, &[1]);
    let reserved =
        engine.reserve(wanted.image_key, Arc::clone(&wanted.prompt), 1, Terms::default()).unwrap();
    engine.close();
    assert_eq!(
        engine.submit(item(3, &[1]), Terms::default(), None).await,
        Err(EngineError::Draining)
    );
    let reserved = tokio::spawn(reserved.submit(wanted, None));
    remote.open_gate();
    let report = engine.shutdown(Duration::from_mins(1)).await;
    assert_eq!(report, Shutdown { turned_away: 0, stopped: true });
    assert!(first.await.unwrap());
    assert!(queued.await.unwrap().is_ok() && reserved.await.unwrap().is_ok());
    assert_eq!(*engine.health().borrow(), Health::Stopped);
    assert_eq!(
        engine.submit(item(1, &[1]), Terms::default(), None).await,
        Err(EngineError::Draining)
    );
}

#[tokio::test(start_paused = true)]
async fn shutdown_turns_away_what_does_not_finish_in_time() {
    let (engine, remote) = engine([]).await;
    let first = busy(&engine, &remote).await;
    let queued = tokio::spawn(engine.submit(item(1, &[1]), Terms::default(), None));
    let report = engine.shutdown(Duration::from_secs(3)).await;
    assert_eq!(report, Shutdown { turned_away: 1, stopped: false });
    assert_eq!(queued.await.unwrap(), Err(EngineError::Draining));
    remote.open_gate();
    assert!(first.await.unwrap(), "a batch that has begun is finished");
    engine.health().wait_for(|h| *h == Health::Stopped).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_unused_reservation_does_not_hold_up_shutdown_for_ever() {
    let (engine, _) = engine([]).await;
    let wanted = item(2, &[1]);
    let reservation =
        engine.reserve(wanted.image_key, Arc::clone(&wanted.prompt), 1, Terms::default()).unwrap();
    let report = engine.shutdown(Duration::from_secs(3)).await;
    assert_eq!(report, Shutdown { turned_away: 0, stopped: true });
    assert_eq!(reservation.submit(wanted, None).await, Err(EngineError::Draining));
}

#[tokio::test]
async fn the_worker_ends_with_the_last_handle() {
    let (engine, _) = engine([]).await;
    let mut health = engine.health();
    let submission = engine.submit(item(1, &[1]), Terms::default(), None);
    drop(engine);
    assert!(submission.await.is_ok());
    health.wait_for(|h| *h == Health::Stopped).await.unwrap();
}

#[tokio::test]
async fn a_model_that_cannot_be_built_is_an_error() {
    let settings = EngineSettings::default();
    let refused = Engine::start(|| Err::<Vec<FakeModel>, _>("no weights"), settings).await;
    let Err(StartError::Model(source)) = refused else { panic!("it started") };
    assert_eq!(source.to_string(), "no weights");
    let panicked =
        Engine::start(|| -> Result<Vec<FakeModel>, String> { panic!("scripted") }, settings).await;
    assert!(matches!(panicked, Err(StartError::Panicked)));
    let settings = EngineSettings { max_batch_items: 0, ..settings };
    let (model, _) = FakeModel::new([]);
    let zero = Engine::start(model.builder(), settings).await;
    assert!(matches!(zero, Err(StartError::Setting("max_batch_items"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_come_and_go_leave_nothing_behind() {
    let (engine, remote) = engine([]).await;
    let tasks: Vec<_> = (0..200_u32)
        .map(|n| {
            let engine = engine.clone();
            tokio::spawn(async move {
                let submission =
                    engine.submit(item((n % 5) as u8, &[n, n + 1]), Terms::default(), None);
                if n % 3 == 0 {
                    tokio::task::yield_now().await;
                    return None;
                }
                Some((n, submission.await))
            })
        })
        .collect();
    let mut kept = 0;
    for task in tasks {
        if let Some((n, verdict)) = task.await.unwrap() {
            assert_eq!(verdict.unwrap().logits, [logit(n), logit(n + 1)]);
            kept += 1;
        }
    }
    let report = engine.shutdown(Duration::from_mins(1)).await;
    assert!(report.stopped);
    let stats = engine.stats();
    let ran: usize = remote.batches().iter().map(Vec::len).sum();
    assert_eq!(stats.scored as usize, ran);
    assert_eq!((stats.scored + stats.cancelled, kept), (200, 133));
    assert_eq!((stats.queued_items, stats.queued_tokens), (0, 0));
}

#[tokio::test]
async fn an_item_is_scored_as_it_grows() {
    let (engine, remote) = engine([]).await;
    let whole = item(1, &[]);
    let (mut open, prefill) =
        engine.open(whole.pixels, whole.image_key, whole.prompt, Terms::default(), None).unwrap();
    assert!(prefill.await.unwrap().logits.is_empty());
    assert_eq!(open.append([3, 4].into(), None).await.unwrap().logits, [logit(3), logit(4)]);
    assert_eq!(open.append([5].into(), None).await.unwrap().logits, [logit(5)]);
    assert_eq!((open.tokens(), engine.stats().open.items), (3, 1));
    assert_eq!(engine.stats().open.bytes, 3 * KEPT_BYTES);
    open.close();
    assert_eq!((engine.stats().open.items, engine.stats().open.bytes), (0, 0));
    let ran: Vec<_> = remote.batches().concat().iter().map(|p| p.response.to_vec()).collect();
    assert_eq!(ran, [vec![], vec![3, 4], vec![5]]);
}

#[tokio::test]
async fn what_was_dropped_is_computed_again_and_told_once() {
    let settings = EngineSettings { max_open_bytes: 2 * KEPT_BYTES, ..EngineSettings::default() };
    let (engine, remote) = engine_with([], settings).await;
    let open = |group| {
        let it = item(group, &[]);
        engine.open(it.pixels, it.image_key, it.prompt, Terms::default(), None).unwrap().0
    };
    let (mut a, mut b) = (open(1), open(2));
    a.append([3, 4].into(), None).await.unwrap();
    b.append([7].into(), None).await.unwrap();
    let scores = a.append([5].into(), None).await.unwrap();
    assert_eq!(scores.logits, [logit(5)]);
    let last = remote.batches().concat().pop().unwrap();
    assert_eq!(*last.response, [3, 4, 5]);
    let stats = engine.stats().open;
    assert!(stats.bytes <= 2 * KEPT_BYTES);
    assert!(stats.dropped >= 1 && stats.recomputed_tokens == 2);
    assert_eq!(b.append([8].into(), None).await.unwrap().logits, [logit(8)]);
}

#[tokio::test]
async fn appends_of_many_items_share_a_batch() {
    let (engine, remote) = engine([]).await;
    let items: Vec<OpenItem> = (1..5)
        .map(|group| {
            let it = item(group, &[]);
            engine.open(it.pixels, it.image_key, it.prompt, Terms::default(), None).unwrap().0
        })
        .collect();
    let first = busy(&engine, &remote).await;
    let appends: Vec<_> = items
        .into_iter()
        .map(|mut open| tokio::spawn(async move { open.append([9].into(), None).await }))
        .collect();
    while engine.stats().queued_items < 4 {
        tokio::task::yield_now().await;
    }
    remote.open_gate();
    for append in appends {
        assert_eq!(append.await.unwrap().unwrap().logits, [logit(9)]);
    }
    assert!(first.await.unwrap());
    assert_eq!(remote.batches().last().unwrap().len(), 4);
}

#[tokio::test]
async fn an_append_that_was_given_up_ends_the_item() {
    let (engine, remote) = engine([]).await;
    let it = item(1, &[]);
    let (mut open, prefill) =
        engine.open(it.pixels, it.image_key, it.prompt, Terms::default(), None).unwrap();
    prefill.await.unwrap();
    let first = busy(&engine, &remote).await;
    let late = Instant::now() + Duration::from_millis(1);
    assert_eq!(open.append([3].into(), Some(late)).await, Err(EngineError::Deadline));
    assert_eq!(open.append([4].into(), None).await, Err(EngineError::ItemLost));
    remote.open_gate();
    assert!(first.await.unwrap());
}

#[tokio::test]
async fn items_and_memory_have_bounds() {
    let settings = EngineSettings {
        max_open_items: 1,
        max_batch_kv_bytes: 10 * KEPT_BYTES,
        ..EngineSettings::default()
    };
    let (engine, _) = engine_with([], settings).await;
    let it = item(1, &[]);
    let open = || {
        let it = it.clone();
        engine.open(it.pixels, it.image_key, it.prompt, Terms::default(), None)
    };
    let held = open().unwrap();
    assert!(matches!(open(), Err(EngineError::QueueFull { .. })));
    drop(held);
    assert!(open().is_ok());
    let large: Vec<u32> = (0..20).collect();
    let refused = engine.submit(item(1, &large), Terms::default(), None).await;
    assert_eq!(refused, Err(EngineError::TooLarge));
    engine.close();
    assert!(matches!(open(), Err(EngineError::Draining)));
    assert_eq!(engine.stats().open.items, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_workers_run_batches_at_a_time_and_never_break_a_group() {
    let (build, remote) = FakeModel::pool(3);
    let settings = EngineSettings { max_batch_items: 2, ..EngineSettings::default() };
    let engine = Engine::start(build, settings).await.unwrap();
    remote.close_gate();
    let groups = [1, 1, 1, 1, 2, 2, 3];
    let submissions: Vec<_> = groups
        .iter()
        .enumerate()
        .map(|(n, &group)| {
            tokio::spawn(engine.submit(item(group, &[n as u32]), Terms::default(), None))
        })
        .collect();
    begun(&remote, 3).await;
    // Three workers hold a batch each, of three groups: nobody else may compute group 1's prefix.
    let mut held: Vec<u8> = remote.batches().iter().map(|batch| batch[0].image_key[0]).collect();
    held.sort_unstable();
    assert_eq!(held, [1, 2, 3]);
    remote.open_gate();
    for submission in submissions {
        assert!(submission.await.unwrap().is_ok());
    }
    assert_eq!(engine.stats().workers, 3);
    assert!(engine.shutdown(Duration::from_mins(1)).await.stopped);
    assert_eq!(*engine.health().borrow(), Health::Stopped);
}

#[tokio::test]
async fn a_tenant_with_many_items_does_not_hold_up_another() {
    let settings = EngineSettings { max_batch_items: 1, ..EngineSettings::default() };
    let (engine, remote) = engine_with([], settings).await;
    let first = busy(&engine, &remote).await;
    let submit = |group, token, tenant: &str, priority| {
        let terms = Terms { tenant: Arc::from(tenant), priority };
        tokio::spawn(engine.submit(item(group, &[token]), terms, None))
    };
    let mut all: Vec<_> = (0..4).map(|n| submit(1 + n, 10 + u32::from(n), "many", 0)).collect();
    all.push(submit(7, 20, "few", 0));
    all.push(submit(8, 30, "many", 1));
    remote.open_gate();
    for one in all {
        one.await.unwrap().unwrap();
    }
    assert!(first.await.unwrap());
    let order: Vec<u32> = remote.batches().iter().skip(1).map(|b| b[0].response[0]).collect();
    assert_eq!(order[0], 30, "the highest priority first: {order:?}");
    assert!(order[1..3].contains(&20), "the other tenant next or after one: {order:?}");
}
