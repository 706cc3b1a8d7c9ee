use std::time::Duration;

use proptest::prelude::*;

use super::*;

const IMAGE_TOKENS: usize = 16;

fn limits() -> Limits {
    Limits {
        queue_items: 100,
        queue_tokens: 1000,
        batch_items: 4,
        batch_tokens: 60,
        image_tokens: IMAGE_TOKENS,
    }
}

/// Group `n` has a prompt of `n` tokens.
fn key(n: u8) -> GroupKey {
    GroupKey { image_key: [n; 32], prompt: vec![7; usize::from(n)].into() }
}

fn prefix(group: u8) -> usize {
    IMAGE_TOKENS + usize::from(group)
}

fn push<T>(policy: &mut Policy<T>, group: u8, tokens: usize, payload: T) -> Ticket {
    let claim = policy.claim(key(group), tokens).unwrap();
    policy.enqueue(claim, payload, None)
}

fn start() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[test]
fn the_oldest_group_is_completed_before_others_run() {
    let mut policy = Policy::new(limits());
    for (group, name) in [(1, "a1"), (2, "b1"), (1, "a2"), (2, "b2"), (1, "a3")] {
        push(&mut policy, group, 5, name);
    }
    let step = policy.next(start());
    assert_eq!(step.batch, ["a1", "a2", "a3", "b1"]);
    assert_eq!(step.tokens, prefix(1) + prefix(2) + 4 * 5);
    assert_eq!(policy.next(start()).batch, ["b2"]);
    assert_eq!((policy.items(), policy.tokens()), (0, 0));
}

#[test]
fn a_leader_that_does_not_fit_is_not_passed_by() {
    let mut policy = Policy::new(limits());
    push(&mut policy, 1, 10, "small");
    push(&mut policy, 2, 40, "large");
    push(&mut policy, 3, 1, "tiny");
    assert_eq!(policy.next(start()).batch, ["small"]);
    assert_eq!(policy.next(start()).batch, ["large"]);
    assert_eq!(policy.next(start()).batch, ["tiny"]);
}

#[test]
fn an_oversized_item_runs_alone() {
    let mut policy = Policy::new(limits());
    push(&mut policy, 1, 500, "huge");
    push(&mut policy, 1, 1, "tiny");
    assert_eq!(policy.next(start()).batch, ["huge"]);
    assert_eq!(policy.next(start()).batch, ["tiny"]);
}

#[test]
fn a_claim_holds_room_until_it_is_released() {
    let mut policy: Policy<()> = Policy::new(Limits { queue_items: 1, ..limits() });
    let claim = policy.claim(key(1), 3).unwrap();
    assert_eq!(policy.tokens(), prefix(1) + 3);
    assert!(policy.is_full());
    assert_eq!(policy.claim(key(1), 3).unwrap_err(), Full);
    policy.release(claim);
    assert_eq!((policy.items(), policy.tokens()), (0, 0));
    assert!(!policy.is_full());
}

#[test]
fn an_item_over_the_bound_enters_only_an_empty_queue() {
    let mut policy = Policy::new(limits());
    push(&mut policy, 1, 5000, "huge");
    assert_eq!(policy.claim(key(1), 1).unwrap_err(), Full);
    assert_eq!(policy.next(start()).batch, ["huge"]);
    push(&mut policy, 1, 1, "tiny");
    assert_eq!(policy.claim(key(1), 5000).unwrap_err(), Full);
}

#[test]
fn a_late_item_expires_instead_of_running() {
    let now = start();
    let mut policy = Policy::new(limits());
    let claim = policy.claim(key(1), 1).unwrap();
    policy.enqueue(claim, "late", Some(now + Duration::from_millis(5)));
    push(&mut policy, 1, 1, "patient");
    let step = policy.next(now + Duration::from_millis(5));
    assert_eq!((step.batch, step.expired), (vec!["patient"], vec!["late"]));
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Claim { group: u8, tokens: usize },
    Enqueue { nth: usize, patience: Option<u64> },
    Release { nth: usize },
    Cancel { nth: usize },
    Next,
    Pass { millis: u64 },
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0u8..4, 1usize..80).prop_map(|(group, tokens)| Event::Claim { group, tokens }),
        6 => (any::<usize>(), proptest::option::weighted(0.3, 0u64..50))
            .prop_map(|(nth, patience)| Event::Enqueue { nth, patience }),
        1 => any::<usize>().prop_map(|nth| Event::Release { nth }),
        1 => any::<usize>().prop_map(|nth| Event::Cancel { nth }),
        2 => Just(Event::Next),
        1 => (0u64..20).prop_map(|millis| Event::Pass { millis }),
    ]
}

fn tight() -> impl Strategy<Value = Limits> {
    (1usize..12, 20usize..400, 1usize..6, 20usize..120).prop_map(
        |(queue_items, queue_tokens, batch_items, batch_tokens)| Limits {
            queue_items,
            queue_tokens,
            batch_items,
            batch_tokens,
            image_tokens: IMAGE_TOKENS,
        },
    )
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    id: usize,
    group: u8,
    tokens: usize,
    deadline: Option<Instant>,
    /// Items that waited when this one joined, and batches that had run by then.
    ahead: usize,
    batches_before: usize,
}

/// What must be true of a policy, tracked by the simplest means.
struct Model {
    policy: Policy<Item>,
    limits: Limits,
    now: Instant,
    claims: Vec<(Claim, u8, usize)>,
    waiting: Vec<(Ticket, Item)>,
    ended: Vec<usize>,
    accepted: usize,
    batches: usize,
}

impl Model {
    fn new(limits: Limits) -> Self {
        Self {
            policy: Policy::new(limits),
            limits,
            now: start(),
            claims: Vec::new(),
            waiting: Vec::new(),
            ended: Vec::new(),
            accepted: 0,
            batches: 0,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Claim { group, tokens } => {
                let empty = self.policy.items() == 0;
                match self.policy.claim(key(group), tokens) {
                    Ok(claim) => self.claims.push((claim, group, tokens)),
                    Err(Full) => assert!(!empty, "an empty queue refused an item"),
                }
            }
            Event::Enqueue { nth, patience } => {
                if let Some((claim, group, tokens)) = take(&mut self.claims, nth) {
                    let deadline = patience.map(|ms| self.now + Duration::from_millis(ms));
                    let item = Item {
                        id: self.accepted,
                        group,
                        tokens,
                        deadline,
                        ahead: self.waiting.len(),
                        batches_before: self.batches,
                    };
                    self.accepted += 1;
                    let ticket = self.policy.enqueue(claim, item, deadline);
                    self.waiting.push((ticket, item));
                }
            }
            Event::Release { nth } => {
                if let Some((claim, ..)) = take(&mut self.claims, nth) {
                    self.policy.release(claim);
                }
            }
            Event::Cancel { nth } => {
                if let Some((ticket, item)) = take(&mut self.waiting, nth) {
                    assert_eq!(self.policy.cancel(ticket), Some(item));
                    assert_eq!(self.policy.cancel(ticket), None);
                    self.ended.push(item.id);
                }
            }
            Event::Next => self.step(),
            Event::Pass { millis } => self.now += Duration::from_millis(millis),
        }
        self.check_bounds();
    }

    fn step(&mut self) {
        let step = self.policy.next(self.now);
        for item in &step.expired {
            assert!(item.deadline.is_some_and(|at| at <= self.now));
            self.end(*item);
        }
        assert_eq!(step.batch.is_empty(), self.waiting.is_empty(), "work was left for no reason");
        let Some(oldest) = self.waiting.first().map(|&(_, item)| item) else { return };
        assert_eq!(step.batch.first(), Some(&oldest), "the oldest item leads");
        self.check_batch(&step.batch, step.tokens);
        for item in step.batch {
            assert!(item.deadline.is_none_or(|at| at > self.now), "a late item ran");
            assert!(
                self.batches - item.batches_before <= item.ahead,
                "an item waited for more batches than there were items before it"
            );
            self.end(item);
        }
        self.batches += 1;
    }

    fn check_batch(&self, batch: &[Item], tokens: usize) {
        let mut groups: Vec<u8> = batch.iter().map(|i| i.group).collect();
        groups.dedup();
        let runs = groups.len();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(runs, groups.len(), "a group's items stand together");
        let cost = batch.iter().map(|i| i.tokens).sum::<usize>()
            + groups.iter().map(|&g| prefix(g)).sum::<usize>();
        assert_eq!(tokens, cost, "a prefix counts once per group");
        assert!(batch.len() <= self.limits.batch_items);
        assert!(cost <= self.limits.batch_tokens || batch.len() == 1);
        for group in groups {
            let ids: Vec<usize> = batch.iter().filter(|i| i.group == group).map(|i| i.id).collect();
            assert!(ids.is_sorted(), "a group's items keep their order");
        }
    }

    fn end(&mut self, item: Item) {
        let at = self.waiting.iter().position(|&(_, w)| w == item);
        let at = at.expect("an item ended that did not wait");
        self.waiting.remove(at);
        self.ended.push(item.id);
    }

    fn check_bounds(&self) {
        let claimed = self.claims.iter().map(|&(_, group, tokens)| (group, tokens));
        let held: Vec<(u8, usize)> =
            claimed.chain(self.waiting.iter().map(|(_, i)| (i.group, i.tokens))).collect();
        let mut groups: Vec<u8> = held.iter().map(|h| h.0).collect();
        groups.sort_unstable();
        groups.dedup();
        let tokens = held.iter().map(|h| h.1).sum::<usize>()
            + groups.iter().map(|&g| prefix(g)).sum::<usize>();
        assert_eq!((self.policy.items(), self.policy.tokens()), (held.len(), tokens));
        assert!(held.len() <= self.limits.queue_items);
        assert!(tokens <= self.limits.queue_tokens || held.len() == 1);
    }
}

fn take<T>(from: &mut Vec<T>, nth: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(nth % from.len()))
}

proptest! {
    #[test]
    fn every_item_ends_once_within_bounds_and_without_starving(
        limits in tight(),
        events in proptest::collection::vec(event(), 0..120),
    ) {
        let mut model = Model::new(limits);
        for event in events {
            model.apply(event);
        }
        while let Some((claim, ..)) = model.claims.pop() {
            model.policy.release(claim);
        }
        while !model.policy.is_idle() {
            model.step();
        }
        model.check_bounds();
        model.ended.sort_unstable();
        prop_assert_eq!(model.ended, (0..model.accepted).collect::<Vec<_>>());
        prop_assert_eq!((model.policy.items(), model.policy.tokens()), (0, 0));
        prop_assert!(model.policy.groups.is_empty() && model.policy.deadlines.is_empty());
    }

    #[test]
    fn draining_empties_the_queue_in_order(groups in proptest::collection::vec(0u8..3, 0..20)) {
        let mut policy = Policy::new(limits());
        for (n, &group) in groups.iter().enumerate() {
            push(&mut policy, group, 1, n);
        }
        prop_assert_eq!(policy.drain(), (0..groups.len()).collect::<Vec<_>>());
        prop_assert_eq!((policy.items(), policy.tokens()), (0, 0));
    }
}
