use std::collections::{BTreeMap, VecDeque};
use std::sync::Barrier;
use std::thread;

use super::*;

type Copy_ = (u32, u64);

/// Copies nothing: says what it was told to say, once everybody has joined.
#[derive(Default)]
struct Scripted {
    answers: Mutex<BTreeMap<u32, VecDeque<TransferError>>>,
    asked: Mutex<Vec<(u32, u32)>>,
    hold: Option<Barrier>,
    panics: bool,
}

impl Copier for Scripted {
    type Copy = Copy_;

    fn copy(&self, source: &Copy_, to: u32) -> Result<Copied<Copy_>, TransferError> {
        if let Some(hold) = &self.hold {
            hold.wait();
            hold.wait();
        }
        self.asked.lock().unwrap().push((source.0, to));
        assert!(!self.panics, "as told");
        let told = self.answers.lock().unwrap().get_mut(&source.0).and_then(VecDeque::pop_front);
        match told {
            Some(error) => Err(error),
            None => Ok(Copied { copy: (to, source.1), route: Route::Peer, bytes: 10 }),
        }
    }
}

fn key() -> Key {
    Key([1; 32])
}

fn fault() -> Fault {
    Fault { call: "a call", code: 214 }
}

fn scripted(answers: &[(u32, TransferError)]) -> Scripted {
    let copier = Scripted::default();
    for (from, error) in answers {
        copier.answers.lock().unwrap().entry(*from).or_default().push_back(error.clone());
    }
    copier
}

fn shared(copier: Scripted, holders: &[u32]) -> Sharing<Scripted> {
    let sharing = Sharing::new(copier, PeerMatrix::none());
    for on in holders {
        sharing.insert(key(), *on, (*on, 7));
    }
    sharing
}

/// Ten callers of which nine have joined before the copy is made.
fn ten_at_once(copier: Scripted) -> (Sharing<Scripted>, Vec<Result<Copy_, ObtainError>>) {
    let sharing = shared(Scripted { hold: Some(Barrier::new(2)), ..copier }, &[0]);
    let results = thread::scope(|scope| {
        let callers: Vec<_> = (0..10).map(|_| scope.spawn(|| sharing.obtain(key(), 1))).collect();
        let hold = sharing.copier().hold.as_ref().unwrap();
        hold.wait();
        while sharing.stats().joined < 9 {
            thread::yield_now();
        }
        hold.wait();
        callers
            .into_iter()
            .map(|caller| caller.join().unwrap_or(Err(ObtainError::Missing)))
            .collect()
    });
    (sharing, results)
}

#[test]
fn ten_callers_at_once_cause_one_copy() {
    let (sharing, results) = ten_at_once(scripted(&[]));
    assert_eq!(results, vec![Ok((1, 7)); 10]);
    assert_eq!(*sharing.copier().asked.lock().unwrap(), [(0, 1)]);
    let expected = SharingStats { peer_copies: 1, peer_bytes: 10, joined: 9, ..Default::default() };
    assert_eq!(sharing.stats(), expected);
}

#[test]
fn no_room_is_told_to_all_who_wait() {
    let exhausted = Exhausted { device: 1, wanted: 512, free: 0 };
    let (sharing, results) = ten_at_once(scripted(&[(0, TransferError::Exhausted(exhausted))]));
    assert_eq!(results, vec![Err(ObtainError::Exhausted(exhausted)); 10]);
    assert_eq!(sharing.stats().failed, 1);
    assert_eq!(sharing.holders(key()), [0]);
}

#[test]
fn another_holder_is_asked_when_one_fails_or_sends_other_bytes() {
    let copier = scripted(&[
        (0, TransferError::Source { ordinal: 0, fault: fault() }),
        (1, TransferError::Corrupt { from: 1, to: 3 }),
    ]);
    let sharing = shared(copier, &[0, 1, 2]);
    assert_eq!(sharing.obtain(key(), 3), Ok((3, 7)));
    assert_eq!(*sharing.copier().asked.lock().unwrap(), [(0, 3), (1, 3), (2, 3)]);
    let stats = sharing.stats();
    assert_eq!((stats.failed, stats.corrupt, stats.peer_copies), (2, 1, 1));
}

#[test]
fn when_no_holder_can_send_it_is_missing() {
    let copier = scripted(&[(0, TransferError::Source { ordinal: 0, fault: fault() })]);
    let sharing = shared(copier, &[0]);
    assert_eq!(sharing.obtain(key(), 3), Err(ObtainError::Missing));
    // What failed once may do the next time.
    assert_eq!(sharing.obtain(key(), 3), Ok((3, 7)));
}

#[test]
fn a_device_that_cannot_receive_ends_it_at_once() {
    let wrong = Fault { call: "a call", code: 1 };
    for (fault, expected) in [
        (wrong, ObtainError::Fault { ordinal: 3, fault: wrong }),
        (fault(), ObtainError::DeviceLost(3)),
    ] {
        let copier = scripted(&[(0, TransferError::Destination { ordinal: 3, fault })]);
        let sharing = shared(copier, &[0, 1]);
        assert_eq!(sharing.obtain(key(), 3), Err(expected));
        assert_eq!(*sharing.copier().asked.lock().unwrap(), [(0, 3)]);
    }
}

#[test]
fn who_waits_for_a_copy_to_a_lost_device_is_told() {
    let sharing = shared(Scripted { hold: Some(Barrier::new(2)), ..Scripted::default() }, &[0]);
    thread::scope(|scope| {
        let leader = scope.spawn(|| sharing.obtain(key(), 1));
        let hold = sharing.copier().hold.as_ref().unwrap();
        hold.wait();
        let joined = scope.spawn(|| sharing.obtain(key(), 1));
        while sharing.stats().joined < 1 {
            thread::yield_now();
        }
        sharing.forget_device(1);
        // Told before the copy has ended.
        assert_eq!(joined.join().unwrap(), Err(ObtainError::DeviceLost(1)));
        hold.wait();
        assert_eq!(leader.join().unwrap(), Err(ObtainError::DeviceLost(1)));
    });
    assert_eq!(sharing.obtain(key(), 1), Err(ObtainError::DeviceLost(1)));
    assert_eq!(sharing.holders(key()), [0]);
}

#[test]
fn a_copier_that_panics_leaves_nobody_waiting() {
    let (sharing, results) = ten_at_once(Scripted { panics: true, ..Scripted::default() });
    let told = results.iter().filter(|r| matches!(r, Err(ObtainError::Fault { ordinal: 1, .. })));
    assert_eq!(told.count(), 9);
    assert_eq!(sharing.lock().directory.flights(), 0);
}
