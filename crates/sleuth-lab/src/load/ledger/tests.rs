use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SIZE: u32 = 3;

fn arrival(item: u64) -> Arrival {
    let (group, member) = (item / u64::from(SIZE), (item % u64::from(SIZE)) as u32);
    Arrival { at: Duration::ZERO, item, group, member, image: 0, words: 1 }
}

fn valid(version: &str, fingerprint: u64) -> Answer {
    Answer::Valid {
        version: version.to_owned(),
        rewards: 4,
        zeros: 0,
        response_reward: 0.5,
        batch_invariant: true,
        duplicates_joined: 0,
        queue: Duration::ZERO,
        compute: Duration::ZERO,
        fingerprint,
    }
}

fn refused(reason: &str) -> Answer {
    let (class, reason) = ("OVERLOADED".to_owned(), reason.to_owned());
    Answer::Refused { class, reason, retry_after: None, retryable: true }
}

/// A group of which each member was sent once.
fn group() -> Ledger {
    let mut ledger = Ledger::new(SIZE);
    for item in 0..3 {
        ledger.sent(&arrival(item), Attempt::FIRST);
    }
    ledger
}

fn answer_all(ledger: &mut Ledger, answers: [&Answer; 3]) {
    for (item, answer) in answers.into_iter().enumerate() {
        ledger.answered(&arrival(item as u64), Attempt::FIRST, answer, false);
    }
}

#[test]
fn a_group_with_all_its_verdicts_passes_and_leaves_the_memory() {
    let mut ledger = group();
    answer_all(&mut ledger, [&valid("a", 1), &refused("QUEUE"), &valid("a", 2)]);
    assert_eq!(ledger.unfinished_groups(), 0);
    let counts = ledger.close();
    assert_eq!((counts.sent, counts.valid, counts.refused, counts.groups), (3, 2, 1, 1));
    assert_eq!(counts.refusals["OVERLOADED"]["QUEUE"], 1);
    assert!(counts.verdict().passes());
}

#[test]
fn versions_are_mixed_once_per_group() {
    let mut ledger = group();
    answer_all(&mut ledger, [&valid("a", 1), &valid("b", 2), &valid("c", 3)]);
    let counts = ledger.close();
    assert_eq!((counts.mixed_groups, counts.versions.len()), (1, 3));
    assert_eq!(counts.verdict().problems(), ["1 groups mix versions"]);
}

#[test]
fn a_second_verdict_is_found_before_and_after_its_group_is_finished() {
    let mut ledger = group();
    let first = arrival(0);
    ledger.answered(&first, Attempt::FIRST, &valid("a", 1), false);
    ledger.answered(&first, Attempt::FIRST, &valid("a", 9), false);
    ledger.answered(&arrival(1), Attempt::FIRST, &valid("a", 2), false);
    ledger.answered(&arrival(2), Attempt::FIRST, &valid("a", 3), false);
    ledger.answered(&first, Attempt::FIRST, &valid("a", 1), false);
    let counts = ledger.close();
    assert_eq!((counts.valid, counts.twice_answered, counts.changed_answers), (3, 2, 1));
}

#[test]
fn rewards_that_are_zero_or_not_finite_are_problems() {
    let zero = |zeros, response_reward| match valid("a", 1) {
        Answer::Valid { version, fingerprint, queue, compute, .. } => Answer::Valid {
            version,
            rewards: 4,
            zeros,
            response_reward,
            batch_invariant: false,
            duplicates_joined: 1,
            queue,
            compute,
            fingerprint,
        },
        other => other,
    };
    let mut ledger = group();
    answer_all(&mut ledger, [&zero(2, 0.5), &zero(0, -0.0), &zero(0, f32::NAN)]);
    let counts = ledger.close();
    assert_eq!((counts.zeros, counts.not_finite, counts.not_batch_invariant), (3, 1, 3));
    assert_eq!(counts.duplicates_joined, 3);
    assert_eq!(counts.verdict().problems().len(), 2);
}

#[test]
fn what_has_no_verdict_is_unanswered_and_a_retry_that_was_not_sent_is_not() {
    let mut ledger = group();
    ledger.answered(&arrival(0), Attempt::FIRST, &refused("QUEUE"), true);
    let counts = ledger.close();
    assert_eq!((counts.refused, counts.unanswered, counts.groups), (1, 2, 1));
    assert!(!counts.verdict().passes());
}

#[test]
fn texts_of_the_server_do_not_fill_the_memory() {
    let mut ledger = Ledger::new(1);
    for item in 0..1000 {
        let arrival = Arrival { group: item, member: 0, ..arrival(item) };
        ledger.sent(&arrival, Attempt::FIRST);
        ledger.answered(&arrival, Attempt::FIRST, &refused(&item.to_string()), false);
    }
    let counts = ledger.close();
    let reasons = &counts.refusals["OVERLOADED"];
    assert_eq!((reasons.len(), reasons.values().sum::<u64>()), (65, 1000));
}

/// What a ledger was told.
#[derive(Clone, Debug)]
enum Event {
    Sent(u64, Attempt),
    NotSent(u64),
    Answered(u64, Attempt, Answer, bool),
}

/// Everything that was told, and every question answered by going through all of it.
#[derive(Debug, Default)]
struct Reference(Vec<Event>);

impl Reference {
    /// Of the events before `end`: the attempts without a verdict.
    fn outstanding(&self, end: usize) -> HashSet<(u64, Attempt)> {
        let mut open = HashSet::new();
        for event in &self.0[..end] {
            match event {
                Event::Sent(item, attempt) => drop(open.insert((*item, *attempt))),
                Event::Answered(item, attempt, ..) => drop(open.remove(&(*item, *attempt))),
                Event::NotSent(_) => {}
            }
        }
        open
    }

    /// Whether the event is a verdict that an attempt waited for.
    fn awaited(&self, at: usize) -> bool {
        matches!(&self.0[at], Event::Answered(item, attempt, ..)
            if self.outstanding(at).contains(&(*item, *attempt)))
    }

    /// The attempts that will be sent because of verdicts before `end`, and were not yet.
    fn waits(&self, end: usize) -> Vec<(u64, Attempt)> {
        let mut waits = Vec::new();
        for at in 0..end {
            match &self.0[at] {
                Event::Answered(item, attempt, _, true) if self.awaited(at) => {
                    waits.push((*item, Attempt { number: attempt.number + 1, ..*attempt }));
                }
                Event::Sent(item, attempt) => waits.retain(|wait| *wait != (*item, *attempt)),
                _ => {}
            }
        }
        waits
    }

    /// Whether something of the group is to come after `end`, and something came before.
    fn unfinished(&self, group: u64, end: usize) -> bool {
        let items = group * u64::from(SIZE)..(group + 1) * u64::from(SIZE);
        let arrived: HashSet<u64> = self.0[..end]
            .iter()
            .filter_map(|event| match event {
                Event::Sent(item, _) | Event::NotSent(item) => Some(*item),
                Event::Answered(..) => None,
            })
            .filter(|item| items.contains(item))
            .collect();
        let open = self.outstanding(end).iter().any(|(item, _)| items.contains(item))
            || self.waits(end).iter().any(|(item, _)| items.contains(item));
        !arrived.is_empty() && (open || arrived.len() < SIZE as usize)
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let mut groups = BTreeMap::<u64, HashSet<String>>::new();
        let mut prints = BTreeMap::<u64, HashSet<u64>>::new();
        for (at, event) in self.0.iter().enumerate() {
            match event {
                Event::Sent(item, attempt) => {
                    counts.attempts += 1;
                    counts.sent += u64::from(*attempt == Attempt::FIRST);
                    groups.entry(arrival(*item).group).or_default();
                }
                Event::NotSent(item) => {
                    counts.not_sent += 1;
                    groups.entry(arrival(*item).group).or_default();
                }
                Event::Answered(item, _, answer, _) => {
                    let awaited = self.awaited(at);
                    if awaited {
                        counts.take(answer);
                    } else {
                        counts.twice_answered += 1;
                    }
                    let Answer::Valid { version, fingerprint, .. } = answer else { continue };
                    if awaited {
                        groups.entry(arrival(*item).group).or_default().insert(version.clone());
                    }
                    if self.unfinished(arrival(*item).group, at) {
                        prints.entry(*item).or_default().insert(*fingerprint);
                    }
                }
            }
        }
        counts.unanswered = self.outstanding(self.0.len()).len() as u64;
        counts.groups = groups.len() as u64;
        counts.mixed_groups = groups.values().filter(|versions| versions.len() > 1).count() as u64;
        counts.changed_answers = prints.values().filter(|prints| prints.len() > 1).count() as u64;
        counts
    }

    fn tell(&mut self, ledger: &mut Ledger, event: Event) {
        match &event {
            Event::Sent(item, attempt) => ledger.sent(&arrival(*item), *attempt),
            Event::NotSent(item) => ledger.not_sent(&arrival(*item)),
            Event::Answered(item, attempt, answer, again) => {
                ledger.answered(&arrival(*item), *attempt, answer, *again);
            }
        }
        self.0.push(event);
    }

    /// What a random draw makes happen next, if anything.
    fn next(&self, (kind, pick, detail): (u8, usize, u8), arrived: &mut u64) -> Vec<Event> {
        let end = self.0.len();
        let answer = match detail % 6 {
            0 => refused("QUEUE"),
            1 => Answer::Lost { why: "gone".to_owned() },
            2 => valid("b", 1),
            3 => valid("a", 2),
            _ => valid("a", 1),
        };
        match kind % 8 {
            0..=2 => {
                let item = *arrived;
                *arrived += 1;
                let copy = Event::Sent(item, Attempt { copy: 1, number: 0 });
                let first = Event::Sent(item, Attempt::FIRST);
                match detail % 5 {
                    0 => vec![Event::NotSent(item)],
                    1 => vec![first, copy],
                    _ => vec![first],
                }
            }
            3..=5 => {
                let mut open: Vec<_> = self.outstanding(end).into_iter().collect();
                open.sort_by_key(|(item, attempt)| (*item, attempt.copy, attempt.number));
                let Some(&(item, attempt)) = open.get(pick % open.len().max(1)) else {
                    return Vec::new();
                };
                let again = matches!(answer, Answer::Refused { .. }) && attempt.number < 3;
                vec![Event::Answered(item, attempt, answer, again)]
            }
            6 => {
                let waits = self.waits(end);
                let wait = waits.get(pick % waits.len().max(1));
                wait.map(|&(item, attempt)| Event::Sent(item, attempt)).into_iter().collect()
            }
            _ => {
                let item = pick as u64 % (*arrived + 2);
                vec![Event::Answered(item, Attempt::FIRST, answer, false)]
            }
        }
    }
}

proptest! {
    #[test]
    fn it_counts_as_one_that_remembers_everything(
        draws in proptest::collection::vec((any::<u8>(), any::<usize>(), any::<u8>()), 0..80)
    ) {
        let mut ledger = Ledger::new(SIZE);
        let mut reference = Reference::default();
        let mut arrived = 0;
        for draw in draws {
            for event in reference.next(draw, &mut arrived) {
                reference.tell(&mut ledger, event);
            }
            let end = reference.0.len();
            let groups = arrived.div_ceil(u64::from(SIZE));
            let unfinished = (0..groups).filter(|g| reference.unfinished(*g, end)).count();
            prop_assert_eq!(ledger.unfinished_groups(), unfinished);
        }
        let counts = ledger.close();
        prop_assert_eq!(&counts, &reference.counts());
        let told = counts.valid + counts.refused + counts.lost + counts.unanswered;
        prop_assert_eq!(counts.attempts, told);
    }
}
