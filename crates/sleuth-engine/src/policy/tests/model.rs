use super::reference::{Expected, Shares};
use super::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    Claim { item: Item },
    Enqueue { nth: usize, deadline: Option<u64> },
    Release { nth: usize },
    Cancel { nth: usize },
    Next,
    Finish { nth: usize },
    Resident { group: u8, resident: bool },
    Pass { millis: u64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) id: usize,
    pub(super) group: u8,
    pub(super) tokens: usize,
    pub(super) stage: Stage,
    pub(super) tenant: usize,
    pub(super) priority: i32,
    pub(super) since: Instant,
    deadline: Option<Instant>,
}

fn item() -> impl Strategy<Value = Item> {
    let stage = prop_oneof![Just(Stage::Open), Just(Stage::Whole)];
    let size = prop_oneof![4 => 0usize..20, 1 => 0usize..80];
    let since = start();
    (0u8..4, size, stage, 0usize..3, -1i32..2).prop_map(
        move |(group, tokens, stage, tenant, priority)| Item {
            id: 0,
            group,
            tokens,
            stage,
            tenant,
            priority,
            since,
            deadline: None,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let nth = any::<usize>();
    prop_oneof![
        8 => item().prop_map(|item| Event::Claim { item }),
        8 => (nth, proptest::option::weighted(0.2, 0u64..50))
            .prop_map(|(nth, deadline)| Event::Enqueue { nth, deadline }),
        1 => nth.prop_map(|nth| Event::Release { nth }),
        1 => nth.prop_map(|nth| Event::Cancel { nth }),
        3 => Just(Event::Next),
        2 => nth.prop_map(|nth| Event::Finish { nth }),
        1 => (0u8..4, any::<bool>())
            .prop_map(|(group, resident)| Event::Resident { group, resident }),
        1 => (0u64..20).prop_map(|millis| Event::Pass { millis }),
    ]
}

fn tight() -> impl Strategy<Value = Limits> {
    let queue = (1usize..30, 20usize..600);
    let batch = (1usize..8, 20usize..120, 900u64..2500);
    (queue, batch, 0u64..40, 0usize..=100).prop_map(|(queue, batch, patience, open_share)| {
        let (queue_items, queue_tokens) = queue;
        let (batch_items, batch_tokens, kv_bytes) = batch;
        Limits {
            queue_items,
            queue_tokens,
            batch_items,
            batch_tokens,
            kv_bytes,
            patience: Duration::from_millis(patience),
            open_share,
            ..limits()
        }
    })
}

struct Run {
    id: BatchId,
    cost: Cost,
    computes: Vec<u8>,
}

/// What must be true of a policy, tracked by the simplest means.
struct Model {
    policy: Policy<Item>,
    limits: Limits,
    now: Instant,
    claims: Vec<(Claim, Item)>,
    waiting: Vec<(Ticket, Item)>,
    running: Vec<Run>,
    resident: [bool; 4],
    shares: Shares,
    owed: Option<Stage>,
    /// What the last batch left out although it comes first: an item, a stage.
    passed_by: (Option<usize>, Option<Stage>),
    ended: Vec<usize>,
    accepted: usize,
}

impl Model {
    fn new(limits: Limits) -> Self {
        Self {
            policy: Policy::new(limits),
            limits,
            now: start(),
            claims: Vec::new(),
            waiting: Vec::new(),
            running: Vec::new(),
            resident: [false; 4],
            shares: Shares::default(),
            owed: None,
            passed_by: (None, None),
            ended: Vec::new(),
            accepted: 0,
        }
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Claim { item } => self.claim(item),
            Event::Enqueue { nth, deadline } => {
                if let Some((claim, item)) = take(&mut self.claims, nth) {
                    let deadline = deadline.map(|ms| self.now + Duration::from_millis(ms));
                    let item = Item { id: self.accepted, since: self.now, deadline, ..item };
                    self.accepted += 1;
                    self.shares.join(item.tenant);
                    let ticket = self.policy.enqueue(claim, item, deadline, self.now);
                    self.waiting.push((ticket, item));
                }
            }
            Event::Release { nth } => {
                if let Some((claim, _)) = take(&mut self.claims, nth) {
                    self.policy.release(claim);
                }
            }
            Event::Cancel { nth } => {
                if let Some((ticket, item)) = take(&mut self.waiting, nth) {
                    assert_eq!(self.policy.cancel(ticket), Some(item));
                    assert_eq!(self.policy.cancel(ticket), None);
                    self.shares.leave(item.tenant);
                    self.ended.push(item.id);
                }
            }
            Event::Next => self.step(),
            Event::Finish { nth } => self.finish(nth),
            Event::Resident { group, resident } => self.resident[usize::from(group)] = resident,
            Event::Pass { millis } => self.now += Duration::from_millis(millis),
        }
        self.check_bounds();
    }

    fn claim(&mut self, item: Item) {
        let empty = self.policy.items() == 0;
        let request = Request {
            // A millisecond a token: then the sum is told by the tokens.
            predicted: Predicted {
                own: Duration::from_millis(item.tokens as u64),
                prefix: Duration::from_millis(prefix(item.group).tokens as u64),
            },
            key: key(item.group),
            cost: own(item.tokens),
            stage: item.stage,
            tenant: Tenant(["a", "b", "c"][item.tenant].into()),
            priority: item.priority,
        };
        let kv_bytes = (own(item.tokens) + prefix(item.group)).kv_bytes;
        match self.policy.claim(request) {
            Ok(claim) => self.claims.push((claim, item)),
            Err(Refusal::Full) => assert!(!empty, "an empty queue refused an item"),
            Err(Refusal::TooLarge) => assert!(kv_bytes > self.limits.kv_bytes),
        }
    }

    fn finish(&mut self, nth: usize) {
        if let Some(run) = take(&mut self.running, nth) {
            self.policy.finish(run.id);
        }
    }

    fn step(&mut self) {
        let resident = self.resident;
        let step = self.policy.next(self.now, &|key| resident[usize::from(key.image_key[0])]);
        for item in step.expired {
            assert!(item.deadline.is_some_and(|at| at <= self.now));
            self.end(item);
            self.shares.leave(item.tenant);
        }
        let ready: Vec<Item> = self.waiting.iter().map(|&(_, i)| i).collect();
        let computing = |i: &Item| self.running.iter().any(|r| r.computes.contains(&i.group));
        let ready: Vec<Item> = ready.into_iter().filter(|i| !computing(i)).collect();
        let mut expected = Expected {
            limits: self.limits,
            now: self.now,
            resident,
            free_kv: self.limits.kv_bytes - self.running().kv_bytes,
            shares: &mut self.shares,
            ready: ready.clone(),
            taken: Vec::new(),
            cost: own(0),
            open_tokens: 0,
        };
        expected.fill(self.owed);
        let expected = expected.taken;
        let Some(batch) = step.batch else {
            assert_eq!(expected, [], "work was left for no reason");
            assert!(ready.is_empty() || !self.running.is_empty(), "nobody will ever run");
            return;
        };
        assert_eq!(batch.items, expected);
        self.check_batch(&batch);
        self.check_patience(&batch.items, &ready);
        let mut computes: Vec<u8> = batch.items.iter().map(|i| i.group).collect();
        computes.dedup();
        computes.retain(|&group| !resident[usize::from(group)]);
        assert_eq!(batch.prefixes_computed, computes.len());
        self.running.push(Run { id: batch.id, cost: batch.cost, computes });
        for item in batch.items {
            self.end(item);
        }
    }

    fn check_batch(&self, batch: &Batch<Item>) {
        let mut groups: Vec<u8> = batch.items.iter().map(|i| i.group).collect();
        groups.dedup();
        let runs = groups.len();
        groups.sort_unstable();
        groups.dedup();
        assert_eq!(runs, groups.len(), "a group's items stand together");
        let mut cost = own(batch.items.iter().map(|i| i.tokens).sum());
        for group in groups {
            if !self.resident[usize::from(group)] {
                cost += prefix(group);
            }
            let elsewhere = self.running.iter().any(|run| run.computes.contains(&group));
            assert!(!elsewhere, "a group ran while its prefix was computed");
        }
        assert_eq!(batch.cost, cost, "a prefix counts once per group, and only if computed");
        assert!(batch.items.len() <= self.limits.batch_items);
        assert!(cost.tokens <= self.limits.batch_tokens || batch.items.len() == 1);
        let on_time = |i: &Item| i.deadline.is_none_or(|at| at > self.now);
        assert!(batch.items.iter().all(on_time), "a late item ran");
    }

    /// The oldest item that is out of patience, and each stage, are never passed by twice.
    fn check_patience(&mut self, batch: &[Item], ready: &[Item]) {
        let oldest = ready.first().filter(|i| i.since + self.limits.patience <= self.now);
        let missed = oldest.filter(|oldest| !batch.contains(oldest)).map(|oldest| oldest.id);
        assert!(missed.is_none() || missed != self.passed_by.0, "the oldest item was starved");
        // Where it is not in the batch, the other stage was owed a turn.
        assert!(missed.is_none() || self.owed == Some(batch[0].stage));
        let has = |items: &[Item], stage| items.iter().any(|i| i.stage == stage);
        let mut stage_missed = None;
        for stage in [Stage::Open, Stage::Whole] {
            if has(batch, stage) {
                self.owed = self.owed.filter(|&owed| owed != stage);
            } else if has(ready, stage) {
                assert_ne!(self.passed_by.1, Some(stage), "a stage was starved");
                stage_missed = Some(stage);
            }
        }
        self.owed = stage_missed.or(self.owed);
        self.passed_by = (missed, stage_missed);
    }

    fn end(&mut self, item: Item) {
        let at = self.waiting.iter().position(|&(_, w)| w == item);
        let at = at.expect("an item ended that did not wait");
        self.waiting.remove(at);
        self.ended.push(item.id);
    }

    fn running(&self) -> Cost {
        self.running.iter().fold(own(0), |sum, run| sum + run.cost)
    }

    fn check_bounds(&self) {
        let tokens = Duration::from_millis(self.policy.tokens() as u64);
        assert_eq!(self.policy.predicted(), tokens);
        let held = self.claims.iter().map(|(_, i)| i).chain(self.waiting.iter().map(|(_, i)| i));
        let mut groups: Vec<u8> = held.clone().map(|i| i.group).collect();
        let items = groups.len();
        groups.sort_unstable();
        groups.dedup();
        let tokens = held.map(|i| i.tokens).sum::<usize>()
            + groups.iter().map(|&g| prefix(g).tokens).sum::<usize>();
        assert_eq!((self.policy.items(), self.policy.tokens()), (items, tokens));
        assert!(items <= self.limits.queue_items);
        assert!(tokens <= self.limits.queue_tokens || items == 1);
        assert_eq!(self.policy.running(), self.running());
        assert!(self.running().kv_bytes <= self.limits.kv_bytes);
    }
}

fn take<T>(from: &mut Vec<T>, nth: usize) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(nth % from.len()))
}

proptest! {
    #[test]
    fn every_item_ends_once_within_bounds_and_without_starving(
        limits in tight(),
        events in proptest::collection::vec(event(), 0..150),
    ) {
        let mut model = Model::new(limits);
        for event in events {
            model.apply(event);
        }
        while let Some((claim, _)) = model.claims.pop() {
            model.policy.release(claim);
        }
        while !model.policy.is_idle() {
            let waiting = model.waiting.len();
            model.step();
            if model.waiting.len() == waiting {
                model.finish(0);
            }
        }
        while !model.running.is_empty() {
            model.finish(0);
        }
        model.check_bounds();
        model.ended.sort_unstable();
        prop_assert_eq!(model.ended, (0..model.accepted).collect::<Vec<_>>());
        prop_assert_eq!((model.policy.items(), model.policy.tokens()), (0, 0));
        let Policy { groups, deadlines, batches, ready, service, .. } = model.policy;
        prop_assert!(groups.is_empty() && deadlines.is_empty() && batches.is_empty());
        prop_assert!(ready.is_empty() && service.is_empty());
    }
}
