use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn key(name: u8) -> Key {
    Key([name; 32])
}

fn lead<C: Clone + std::fmt::Debug>(want: Want<C>) -> (FlightId, u32) {
    match want {
        Want::Lead { flight, from, .. } => (flight, from),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_nobody_holds_is_missing_and_what_is_here_is_local() {
    let mut directory = Directory::new(PeerMatrix::none());
    assert_eq!(directory.want(key(1), 0), Want::Missing);
    assert_eq!(directory.insert(key(1), 0, "a"), Some("a"));
    assert_eq!(directory.want(key(1), 0), Want::Local("a"));
    assert_eq!(directory.insert(key(1), 0, "b"), Some("a"));
    assert_eq!(directory.remove(key(1), 0), Some("a"));
    assert_eq!(directory.want(key(1), 0), Want::Missing);
}

#[test]
fn the_second_who_asks_joins_the_first() {
    let mut directory = Directory::new(PeerMatrix::none());
    directory.insert(key(1), 0, "a");
    let (flight, from) = lead(directory.want(key(1), 1));
    assert_eq!(from, 0);
    assert_eq!(directory.want(key(1), 1), Want::Join(flight));
    // Another device is another flight.
    assert_ne!(lead(directory.want(key(1), 2)).0, flight);
    assert_eq!(directory.land(flight, "a1"), Landed::Held("a1"));
    assert_eq!(directory.want(key(1), 1), Want::Local("a1"));
}

#[test]
fn a_direct_way_is_preferred_then_the_device_that_sends_least() {
    let mut peers = PeerMatrix::none();
    peers.open(2, 3);
    peers.open(1, 3);
    let mut directory = Directory::new(peers);
    for on in [0, 1, 2] {
        directory.insert(key(1), on, on);
        directory.insert(key(2), on, on);
    }
    assert_eq!(lead(directory.want(key(1), 3)).1, 1);
    assert_eq!(lead(directory.want(key(2), 3)).1, 2);
    directory.withdraw_peer(1, 3);
    directory.withdraw_peer(2, 3);
    directory.insert(key(3), 1, 1);
    directory.insert(key(3), 0, 0);
    assert_eq!(lead(directory.want(key(3), 3)).1, 0);
}

#[test]
fn each_holder_is_asked_once_and_then_it_is_missing() {
    let mut directory = Directory::new(PeerMatrix::none());
    directory.insert(key(1), 0, "a");
    directory.insert(key(1), 2, "c");
    let (flight, _) = lead(directory.want(key(1), 1));
    assert_eq!(directory.source_failed(flight), Retry::From { from: 2, source: "c" });
    assert_eq!(directory.source_failed(flight), Retry::Missing);
    assert_eq!(directory.source_failed(flight), Retry::Stale);
    assert_eq!(directory.flights(), 0);
}

#[test]
fn a_device_that_was_lost_takes_its_copies_and_flights_along() {
    let mut directory = Directory::new(PeerMatrix::none());
    directory.insert(key(1), 0, "a");
    directory.insert(key(2), 1, "b");
    let (to_lost, _) = lead(directory.want(key(1), 1));
    let (from_lost, _) = lead(directory.want(key(2), 0));
    let forgotten = directory.forget_device(1);
    assert_eq!((forgotten.copies, forgotten.flights), (vec!["b"], vec![to_lost]));
    assert_eq!(directory.land(to_lost, "late"), Landed::Stale);
    assert_eq!(directory.want(key(1), 1), Want::Lost);
    assert_eq!(directory.insert(key(1), 1, "x"), None);
    assert_eq!(directory.source_failed(from_lost), Retry::Missing);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u8, u32),
    Remove(u8, u32),
    Want(u8, u32),
    Land(usize),
    SourceFailed(usize),
    End(usize),
    Forget(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0_u8..4;
    let device = 0_u32..5;
    let step = prop_oneof![
        4 => (key.clone(), device.clone()).prop_map(|(key, on)| Step::Insert(key, on)),
        1 => (key.clone(), device.clone()).prop_map(|(key, on)| Step::Remove(key, on)),
        6 => (key, device.clone()).prop_map(|(key, to)| Step::Want(key, to)),
        3 => (0_usize..20).prop_map(Step::Land),
        3 => (0_usize..20).prop_map(Step::SourceFailed),
        1 => (0_usize..20).prop_map(Step::End),
        1 => device.prop_map(Step::Forget),
    ];
    prop::collection::vec(step, 0..120)
}

/// What a flight must remember, kept without the directory.
#[derive(Debug)]
struct Seen {
    key: u8,
    to: u32,
    asked: Vec<u32>,
    ended: bool,
}

#[derive(Default)]
struct Model {
    holders: BTreeMap<(u8, u32), u64>,
    lost: BTreeSet<u32>,
    flights: Vec<(FlightId, Seen)>,
    copies: u64,
}

impl Model {
    fn next_copy(&mut self) -> u64 {
        self.copies += 1;
        self.copies
    }

    fn under_way(&self, key: u8, to: u32) -> Option<FlightId> {
        let mut found = self.flights.iter().filter(|(_, f)| !f.ended && f.key == key && f.to == to);
        let first = found.next().map(|(id, _)| *id);
        assert!(found.next().is_none(), "two flights for one key and device");
        first
    }

    fn sources(&self, flight: &Seen) -> Vec<u32> {
        self.holders
            .keys()
            .filter(|(key, on)| {
                *key == flight.key && *on != flight.to && !flight.asked.contains(on)
            })
            .map(|(_, on)| *on)
            .collect()
    }

    fn want(&mut self, directory: &mut Directory<u64>, name: u8, to: u32) {
        match directory.want(key(name), to) {
            Want::Lost => assert!(self.lost.contains(&to)),
            Want::Local(copy) => assert_eq!(Some(&copy), self.holders.get(&(name, to))),
            Want::Join(flight) => assert_eq!(Some(flight), self.under_way(name, to)),
            Want::Missing => {
                let asks = Seen { key: name, to, asked: vec![], ended: false };
                assert!(!self.holders.contains_key(&(name, to)));
                assert_eq!(self.sources(&asks), []);
                assert_eq!(self.under_way(name, to), None);
            }
            Want::Lead { flight, from, source } => {
                assert_eq!(self.under_way(name, to), None);
                assert!(!self.lost.contains(&to) && !self.holders.contains_key(&(name, to)));
                assert_eq!(Some(&source), self.holders.get(&(name, from)));
                assert!(self.flights.iter().all(|(id, _)| *id != flight));
                self.flights
                    .push((flight, Seen { key: name, to, asked: vec![from], ended: false }));
            }
        }
    }

    fn source_failed(&mut self, directory: &mut Directory<u64>, at: usize) {
        let Some((id, seen)) = self.flights.get(at) else { return };
        let (id, ended, sources) = (*id, seen.ended, self.sources(seen));
        let answer = directory.source_failed(id);
        let seen = &mut self.flights[at].1;
        match answer {
            Retry::Stale => assert!(ended),
            Retry::Missing => {
                assert!(!ended && sources.is_empty());
                seen.ended = true;
            }
            Retry::From { from, source } => {
                assert!(!ended && sources.contains(&from));
                seen.asked.push(from);
                assert_eq!(Some(&source), self.holders.get(&(seen.key, from)));
            }
        }
    }

    fn land(&mut self, directory: &mut Directory<u64>, at: usize) {
        let copy = self.next_copy();
        let Some((id, seen)) = self.flights.get_mut(at) else { return };
        match directory.land(*id, copy) {
            Landed::Stale => assert!(seen.ended),
            Landed::Held(held) => {
                assert!(!seen.ended && !self.lost.contains(&seen.to));
                seen.ended = true;
                assert_eq!(held, *self.holders.entry((seen.key, seen.to)).or_insert(copy));
            }
        }
    }

    fn forget(&mut self, directory: &mut Directory<u64>, ordinal: u32) {
        let forgotten = directory.forget_device(ordinal);
        let mut copies = forgotten.copies;
        copies.sort_unstable();
        let mut expected: Vec<_> =
            self.holders.iter().filter(|((_, on), _)| *on == ordinal).map(|(_, c)| *c).collect();
        expected.sort_unstable();
        assert_eq!(copies, expected);
        self.holders.retain(|(_, on), _| *on != ordinal);
        let mut ended = Vec::new();
        for (id, flight) in &mut self.flights {
            if flight.to == ordinal && !flight.ended {
                flight.ended = true;
                ended.push(*id);
            }
        }
        assert_eq!(forgotten.flights, ended);
        self.lost.insert(ordinal);
    }

    fn step(&mut self, directory: &mut Directory<u64>, step: &Step) {
        match *step {
            Step::Insert(name, on) => {
                let copy = self.next_copy();
                let held = directory.insert(key(name), on, copy);
                let lost = self.lost.contains(&on);
                let expected = (!lost).then(|| *self.holders.entry((name, on)).or_insert(copy));
                assert_eq!(held, expected);
            }
            Step::Remove(name, on) => {
                assert_eq!(directory.remove(key(name), on), self.holders.remove(&(name, on)));
            }
            Step::Want(name, to) => self.want(directory, name, to),
            Step::Land(at) => self.land(directory, at),
            Step::SourceFailed(at) => self.source_failed(directory, at),
            Step::End(at) => {
                let Some((id, seen)) = self.flights.get_mut(at) else { return };
                assert_eq!(directory.end(*id), !seen.ended);
                seen.ended = true;
            }
            Step::Forget(ordinal) => self.forget(directory, ordinal),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn the_directory_agrees_with_a_plain_model(steps in steps(), links in any::<u32>()) {
        let mut peers = PeerMatrix::none();
        for pair in 0..25 {
            if links & (1 << pair) != 0 {
                peers.open(pair / 5, pair % 5);
            }
        }
        let mut directory = Directory::new(peers);
        let mut model = Model::default();
        for step in steps {
            model.step(&mut directory, &step);
            let under_way = model.flights.iter().filter(|(_, flight)| !flight.ended).count();
            prop_assert_eq!(directory.flights(), under_way);
            for name in 0..4 {
                let holders: Vec<_> =
                    model.holders.keys().filter(|(key, _)| *key == name).map(|(_, on)| *on).collect();
                prop_assert_eq!(directory.holders(key(name)), holders);
            }
        }
    }
}
