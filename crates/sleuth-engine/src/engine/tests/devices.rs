//! Devices that are lost, and devices that are short of memory.

use super::*;

fn lost() -> Act {
    Act::FailAll(ModelFailure::DeviceLost("scripted".to_owned()))
}

fn out_of_memory() -> Act {
    Act::FailAll(ModelFailure::OutOfMemory)
}

#[tokio::test]
async fn a_lost_devices_items_run_on_another_one_and_its_worker_ends() {
    let (build, remote) = FakeModel::scripted_pool(vec![vec![lost()], Vec::new()]);
    let engine = Engine::start(build, EngineSettings::default()).await.unwrap();
    remote.close_gate();
    let items = [item(1, &[1]), item(1, &[2]), item(2, &[3]), item(3, &[4])];
    let submissions = items.clone().map(|item| engine.submit(item, Terms::default(), None));
    remote.open_gate();
    for (submission, item) in submissions.into_iter().zip(&items) {
        let expected: Vec<f32> = item.response.iter().map(|&id| logit(id)).collect();
        assert_eq!(submission.await.unwrap().logits, expected);
    }
    // Whether the first worker had a batch depends on who woke first; in the end it has one.
    for round in 0..200 {
        if engine.stats().devices_lost == 1 {
            break;
        }
        engine.submit(item(round, &[5]), Terms::default(), None).await.unwrap();
    }
    let stats = engine.stats();
    assert_eq!((stats.devices_lost, stats.failed, stats.running_items), (1, 0, 0));
    assert_eq!(*engine.health().borrow(), Health::Healthy);
    let shutdown = engine.shutdown(Duration::from_secs(5)).await;
    assert!(shutdown.stopped);
}

#[tokio::test]
async fn with_the_last_device_everything_fails_and_nothing_hangs() {
    let (engine, remote) = engine([lost()]).await;
    let first = busy(&engine, &remote).await;
    let waiting = engine.submit(item(1, &[1]), Terms::default(), None);
    remote.open_gate();
    assert!(!first.await.unwrap());
    assert_eq!(waiting.await.unwrap_err(), EngineError::Draining);
    engine.health().wait_for(|health| *health == Health::Stopped).await.unwrap();
    let late = engine.submit(item(2, &[1]), Terms::default(), None).await;
    assert_eq!(late.unwrap_err(), EngineError::Draining);
    let stats = engine.stats();
    assert_eq!(
        (stats.devices_lost, stats.failed, stats.drained, stats.running_items),
        (1, 1, 1, 0)
    );
}

#[tokio::test]
async fn a_batch_that_kills_devices_takes_two_and_leaves_the_third() {
    let (build, _remote) = FakeModel::scripted_pool(vec![vec![lost()], vec![lost()], vec![lost()]]);
    let engine = Engine::start(build, EngineSettings::default()).await.unwrap();
    let failed = engine.submit(item(1, &[1]), Terms::default(), None).await.unwrap_err();
    assert_eq!(failed, EngineError::WorkerFailed);
    assert_eq!(engine.stats().devices_lost, 2);
    assert_eq!(*engine.health().borrow(), Health::Healthy);
    let last = engine.submit(item(2, &[1]), Terms::default(), None).await.unwrap_err();
    assert_eq!(last, EngineError::WorkerFailed);
    engine.health().wait_for(|health| *health == Health::Stopped).await.unwrap();
}

#[tokio::test]
async fn a_batch_that_does_not_fit_is_run_in_halves() {
    // The first batch holds the worker; the next has four items.
    let script = [Act::Score, out_of_memory(), Act::Score, out_of_memory(), Act::Score, Act::Score];
    let (engine, remote) = engine(script).await;
    let first = busy(&engine, &remote).await;
    let items = [item(1, &[1]), item(1, &[2]), item(1, &[3]), item(1, &[4])];
    let waiting = items.clone().map(|item| engine.submit(item, Terms::default(), None));
    remote.open_gate();
    for (submission, item) in waiting.into_iter().zip(&items) {
        assert_eq!(submission.await.unwrap().logits, [logit(item.response[0])]);
    }
    assert!(first.await.unwrap());
    let sizes: Vec<usize> = remote.batches().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1, 4, 2, 2, 1, 1]);
    assert_eq!((engine.stats().scored, engine.stats().batches), (5, 2));
}

#[tokio::test]
async fn an_item_that_does_not_fit_alone_is_refused_to_come_again() {
    let (engine, _remote) = engine([out_of_memory(), out_of_memory()]).await;
    let refused = engine.submit(item(1, &[1]), Terms::default(), None).await.unwrap_err();
    assert!(matches!(refused, EngineError::QueueFull { retry_after } if !retry_after.is_zero()));
    assert!(engine.submit(item(1, &[1]), Terms::default(), None).await.is_ok());
}

#[tokio::test]
async fn an_append_that_did_not_fit_can_be_made_again() {
    let script = [Act::Score, Act::Score, out_of_memory(), out_of_memory()];
    let (engine, _remote) = engine(script).await;
    let pixels = Pixels::try_new(1, 1, vec![0.0; 3].into()).unwrap();
    let (mut open, prefill) =
        engine.open(pixels, [7; 32], vec![1].into(), Terms::default(), None).unwrap();
    prefill.await.unwrap();
    assert_eq!(open.append(vec![1].into(), None).await.unwrap().logits, [logit(1)]);
    let refused = open.append(vec![2].into(), None).await.unwrap_err();
    assert!(matches!(refused, EngineError::QueueFull { .. }));
    // What was kept is gone with the attempt: the first token is computed again, and told once.
    assert_eq!(open.append(vec![2].into(), None).await.unwrap().logits, [logit(2)]);
    assert_eq!(open.tokens(), 2);
    assert_eq!(engine.stats().open.recomputed_tokens, 2);
}
