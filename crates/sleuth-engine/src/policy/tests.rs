mod model;
mod reference;

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

const IMAGE_TOKENS: usize = 16;
const KV_PER_TOKEN: u64 = 10;

fn limits() -> Limits {
    Limits {
        queue_items: 100,
        queue_tokens: 1000,
        batch_items: 4,
        batch_tokens: 60,
        kv_bytes: 10_000,
        kv_bytes_per_token: KV_PER_TOKEN,
        kv_page: 1,
        image_tokens: IMAGE_TOKENS,
        patience: Duration::from_secs(1),
        open_share: 50,
    }
}

/// Group `n` has a prompt of `n` tokens.
fn key(n: u8) -> GroupKey {
    GroupKey { image_key: [n; 32], prompt: vec![7; usize::from(n)].into() }
}

fn prefix(group: u8) -> Cost {
    let tokens = IMAGE_TOKENS + usize::from(group);
    Cost { tokens, kv_bytes: KV_PER_TOKEN * tokens as u64 }
}

fn own(tokens: usize) -> Cost {
    Cost { tokens, kv_bytes: KV_PER_TOKEN * tokens as u64 }
}

fn whole(group: u8, tokens: usize) -> Request {
    Request {
        predicted: Predicted::default(),
        key: key(group),
        cost: own(tokens),
        stage: Stage::Whole,
        tenant: Tenant("a".into()),
        priority: 0,
    }
}

fn open(group: u8, tokens: usize) -> Request {
    Request { stage: Stage::Open, ..whole(group, tokens) }
}

fn of(tenant: &str, request: Request) -> Request {
    Request { tenant: Tenant(tenant.into()), ..request }
}

#[expect(clippy::disallowed_methods, reason = "any instant will do")]
fn start() -> Instant {
    Instant::now()
}

/// A policy with a clock of its own.
struct Rig {
    policy: Policy<&'static str>,
    now: Instant,
    resident: Vec<GroupKey>,
}

impl Rig {
    fn new(limits: Limits) -> Self {
        Self { policy: Policy::new(limits), now: start(), resident: Vec::new() }
    }

    fn push(&mut self, name: &'static str, request: Request) -> Ticket {
        let claim = self.policy.claim(request).unwrap();
        self.policy.enqueue(claim, name, None, self.now)
    }

    fn start(&mut self) -> Option<Batch<&'static str>> {
        let Self { policy, now, resident } = self;
        policy.next(*now, &|key| resident.contains(key)).batch
    }

    /// Runs one batch to its end.
    fn run(&mut self) -> Vec<&'static str> {
        let batch = self.start().unwrap();
        self.policy.finish(batch.id);
        batch.items
    }
}

#[test]
fn the_oldest_group_is_completed_before_others_run() {
    let mut rig = Rig::new(limits());
    for (group, name) in [(1, "a1"), (2, "b1"), (1, "a2"), (2, "b2"), (1, "a3")] {
        rig.push(name, whole(group, 5));
    }
    let batch = rig.start().unwrap();
    assert_eq!(batch.items, ["a1", "a2", "a3", "b1"]);
    assert_eq!(batch.cost, prefix(1) + prefix(2) + own(4 * 5));
    assert_eq!(batch.prefixes_computed, 2);
    assert_eq!(rig.policy.running(), batch.cost);
    rig.policy.finish(batch.id);
    rig.policy.finish(batch.id);
    assert_eq!(rig.policy.running(), Cost::default());
    assert_eq!(rig.run(), ["b2"]);
    assert_eq!((rig.policy.items(), rig.policy.tokens()), (0, 0));
}

#[test]
fn a_leader_that_does_not_fit_is_not_passed_by() {
    let mut rig = Rig::new(limits());
    rig.push("small", whole(1, 10));
    rig.push("large", whole(2, 40));
    rig.push("tiny", whole(3, 1));
    assert_eq!([rig.run(), rig.run(), rig.run()], [["small"], ["large"], ["tiny"]]);
}

#[test]
fn an_oversized_item_runs_alone() {
    let mut rig = Rig::new(limits());
    rig.push("huge", whole(1, 500));
    rig.push("tiny", whole(1, 1));
    rig.push("open", open(1, 0));
    assert_eq!([rig.run(), rig.run(), rig.run()], [["open"], ["huge"], ["tiny"]]);
}

#[test]
fn a_claim_holds_room_until_it_is_released() {
    let mut policy: Policy<()> = Policy::new(Limits { queue_items: 1, ..limits() });
    let claim = policy.claim(whole(1, 3)).unwrap();
    assert_eq!(policy.tokens(), prefix(1).tokens + 3);
    assert!(policy.is_full());
    assert_eq!(policy.claim(whole(1, 3)).unwrap_err(), Refusal::Full);
    policy.release(claim);
    assert_eq!((policy.items(), policy.tokens()), (0, 0));
    assert!(!policy.is_full());
}

#[test]
fn an_item_over_the_bound_enters_only_an_empty_queue() {
    let mut rig = Rig::new(Limits { kv_bytes: u64::MAX, ..limits() });
    rig.push("huge", whole(1, 5000));
    assert_eq!(rig.policy.claim(whole(1, 1)).unwrap_err(), Refusal::Full);
    assert_eq!(rig.run(), ["huge"]);
    rig.push("tiny", whole(1, 1));
    assert_eq!(rig.policy.claim(whole(1, 5000)).unwrap_err(), Refusal::Full);
}

#[test]
fn an_item_that_can_never_run_is_refused_for_good() {
    let mut policy: Policy<()> = Policy::new(Limits { kv_bytes: 200, ..limits() });
    assert_eq!(policy.claim(whole(1, 4)).unwrap_err(), Refusal::TooLarge);
    let claim = policy.claim(whole(1, 3)).unwrap();
    policy.release(claim);
}

#[test]
fn a_late_item_expires_instead_of_running() {
    let mut rig = Rig::new(limits());
    let at = rig.now + Duration::from_millis(5);
    let claim = rig.policy.claim(whole(1, 1)).unwrap();
    rig.policy.enqueue(claim, "late", Some(at), rig.now);
    rig.push("patient", whole(1, 1));
    let step = rig.policy.next(at, &|_| false);
    assert_eq!((step.batch.unwrap().items, step.expired), (vec!["patient"], vec!["late"]));
}

#[test]
fn a_group_waits_while_its_prefix_is_computed() {
    let mut rig = Rig::new(Limits { batch_items: 1, ..limits() });
    for name in ["a1", "a2"] {
        rig.push(name, whole(1, 1));
    }
    rig.push("b1", whole(2, 1));
    let first = rig.start().unwrap();
    assert_eq!(first.items, ["a1"]);
    let second = rig.start().unwrap();
    assert_eq!(second.items, ["b1"]);
    assert!(rig.start().is_none());
    assert!(!rig.policy.is_idle());
    rig.policy.finish(first.id);
    assert_eq!(rig.run(), ["a2"]);
}

#[test]
fn a_group_with_a_resident_prefix_runs_on_several_workers_and_pays_for_no_prefix() {
    let mut rig = Rig::new(Limits { batch_items: 1, ..limits() });
    rig.resident.push(key(1));
    for name in ["a1", "a2"] {
        rig.push(name, whole(1, 3));
    }
    let (first, second) = (rig.start().unwrap(), rig.start().unwrap());
    assert_eq!((first.cost, first.prefixes_computed), (own(3), 0));
    assert_eq!((first.items, second.items), (vec!["a1"], vec!["a2"]));
}

#[test]
fn a_batch_waits_for_kv_that_others_hold() {
    let mut rig = Rig::new(Limits { kv_bytes: 400, ..limits() });
    rig.push("a", whole(1, 10));
    rig.push("b", whole(2, 10));
    rig.push("c", whole(3, 1));
    let first = rig.start().unwrap();
    assert_eq!(first.items, ["a"]);
    assert!(rig.start().is_none(), "the leader is not passed by");
    rig.policy.finish(first.id);
    assert_eq!(rig.run(), ["b"]);
    assert_eq!(rig.run(), ["c"]);
}

#[test]
fn priority_leads_until_patience_ends() {
    let mut rig = Rig::new(Limits { batch_items: 1, ..limits() });
    let urgent = |n| Request { priority: 1, ..whole(n, 1) };
    rig.push("old", whole(1, 1));
    rig.push("urgent", urgent(2));
    rig.push("more", urgent(3));
    assert_eq!(rig.run(), ["urgent"]);
    rig.now += limits().patience;
    assert_eq!(rig.run(), ["old"]);
}

#[test]
fn mates_join_whoever_they_belong_to() {
    let mut rig = Rig::new(limits());
    rig.push("a1", whole(1, 1));
    rig.push("a2", whole(2, 1));
    rig.push("b1", of("b", whole(1, 1)));
    assert_eq!(rig.run(), ["a1", "b1", "a2"]);
}

#[test]
fn idleness_earns_no_credit() {
    let mut rig = Rig::new(Limits { batch_items: 1, ..limits() });
    for (n, name) in ["a1", "a2", "a3", "a4"].into_iter().enumerate() {
        rig.push(name, of("a", whole(n as u8, 1)));
    }
    assert_eq!([rig.run(), rig.run()], [["a1"], ["a2"]]);
    for (n, name) in ["b1", "b2"].into_iter().enumerate() {
        rig.push(name, of("b", whole(n as u8, 1)));
    }
    // "b" starts where "a" is, and prefixes grow by one token.
    let order = [rig.run(), rig.run(), rig.run(), rig.run()];
    assert_eq!(order, [["a3"], ["b1"], ["b2"], ["a4"]]);
}

#[test]
fn open_items_leave_whole_ones_their_share() {
    let mut rig = Rig::new(limits());
    rig.resident.extend([key(1), key(2)]);
    for name in ["o1", "o2", "o3", "o4"] {
        rig.push(name, open(1, 1));
    }
    rig.push("w1", whole(2, 60));
    rig.push("w2", whole(2, 1));
    assert_eq!(rig.run(), ["o1", "o2"], "the whole one does not fit beside them");
    assert_eq!(rig.run(), ["w1"], "so its turn comes next");
    assert_eq!(rig.run(), ["o3", "o4", "w2"]);
}

#[test]
fn open_items_take_all_where_no_whole_one_can_run() {
    let mut rig = Rig::new(limits());
    for name in ["o1", "o2", "o3"] {
        rig.push(name, open(1, 10));
    }
    rig.push("w", whole(1, 1));
    assert_eq!(rig.run(), ["o1", "w", "o2", "o3"]);
}

#[test]
fn an_open_item_is_not_stuck_behind_whole_ones_that_lost_patience() {
    let mut rig = Rig::new(limits());
    for (n, name) in ["w1", "w2", "w3"].into_iter().enumerate() {
        rig.push(name, whole(n as u8, 60));
    }
    rig.now += limits().patience;
    rig.push("o", open(9, 1));
    assert_eq!([rig.run(), rig.run(), rig.run()], [["w1"], ["o"], ["w2"]]);
}

#[test]
fn a_large_queue_runs_in_groups() {
    let room = Limits { queue_items: usize::MAX, queue_tokens: usize::MAX, ..limits() };
    let mut rig = Rig::new(Limits { batch_tokens: 10_000, batch_items: 64, ..room });
    for n in 0..10_000_i32 {
        let tenant = if n % 3 == 0 { "a" } else { "b" };
        rig.push("item", Request { priority: n % 5, ..of(tenant, whole(0, 1)) });
    }
    let mut batches = 0;
    while !rig.policy.is_idle() {
        rig.run();
        batches += 1;
    }
    assert_eq!(batches, 10_000_usize.div_ceil(64));
}

proptest! {
    #[test]
    fn draining_empties_the_queue_in_order(groups in proptest::collection::vec(0u8..3, 0..20)) {
        let mut policy = Policy::new(limits());
        for (n, &group) in groups.iter().enumerate() {
            let claim = policy.claim(whole(group, 1)).unwrap();
            policy.enqueue(claim, n, None, start());
        }
        prop_assert_eq!(policy.drain(), (0..groups.len()).collect::<Vec<_>>());
        prop_assert_eq!((policy.items(), policy.tokens()), (0, 0));
    }

    /// Sizes are of the one tenant and of the other; each item has a prefix of its own.
    #[test]
    fn backlogged_tenants_get_the_same_service(
        sizes in [proptest::collection::vec(0usize..90, 60), proptest::collection::vec(0usize..9, 60)],
        batch_items in 1usize..6,
        resident in proptest::bool::weighted(0.5),
    ) {
        let limits = Limits { batch_items, queue_tokens: 100_000, queue_items: 120, ..limits() };
        let mut policy = Policy::new(limits);
        let now = start();
        let mut waiting = [0, 0];
        for (tenant, sizes) in sizes.iter().enumerate() {
            for (n, &size) in sizes.iter().enumerate() {
                let mut request = of(["a", "b"][tenant], whole(0, size));
                request.key.image_key = [(2 * n + tenant) as u8; 32];
                let claim = policy.claim(request).unwrap();
                policy.enqueue(claim, (tenant, size), None, now);
                waiting[tenant] += 1;
            }
        }
        let own_prefix = if resident { 0 } else { IMAGE_TOKENS };
        let largest = 90 + own_prefix;
        let bound = largest + limits.batch_tokens.max(largest);
        let mut charged = [0usize; 2];
        let mut order = VecDeque::new();
        while waiting.iter().all(|&n| n > 0) {
            let batch = policy.next(now, &|_| resident).batch.unwrap();
            policy.finish(batch.id);
            for (tenant, size) in batch.items {
                charged[tenant] += size + own_prefix;
                waiting[tenant] -= 1;
                order.push_back(tenant);
            }
            prop_assert!(charged[0].abs_diff(charged[1]) <= bound, "{charged:?} {order:?}");
        }
    }
}
