use std::time::Duration;

use super::{Arrival, DeviceCost, Random, Workload, cache_of, closed};

/// Workloads after reports of routers that did badly.
pub(super) fn all(seed: u64, cost: &DeviceCost) -> Vec<Workload> {
    vec![relax_147(seed), sglang_21199(seed, cost), prime_rl_3255(seed)]
}

/// After redai-studio/Relax issue 147: 64 prompts x 8 samples over 8 workers, to which
/// `cache_aware` gave 88, 80, 59, 15, 106, 70, 73 and 21 requests and round robin 64 each.
///
/// Taken from there: the shape, and that the router sees prompts only. The thread does not give
/// the texts; here they have a template of 40 tokens and a question of 20 to 180, so that the
/// template alone is over the router's threshold in some and not in others.
fn relax_147(seed: u64) -> Workload {
    let mut random = Random::new(seed);
    let mut items = Vec::new();
    for prefix in 0..64 {
        let question = 20 + random.below(160) as u32;
        for _ in 0..8 {
            let tokens = random.log_normal(128.0, 1.0).clamp(4.0, 1024.0) as u32;
            items.push(Arrival {
                prefix,
                prefix_positions: 256 + 40 + question,
                images: 1,
                response_tokens: tokens,
                expected_tokens: 128,
                group: Some(prefix),
                group_size: 8,
                text: vec![(0, 40), (prefix + 1, question)],
                ..Arrival::default()
            });
        }
    }
    closed("Relax 147", 8, vec![items])
}

/// After sgl-project/sglang issue 21199: 400 prompts that share 2,548 tokens of 9,800, 3 requests
/// per second, at most 36 out, 2 workers: round robin's first token took 627 ms, `cache_aware`'s
/// 1,617.
///
/// Taken from there: the numbers, of which 7,252 tokens are each item's own. The rate is set to 80 %
/// of what two replicas can do, as theirs is unknown. The thread does not say why; the router looks
/// at text, whose share varies with the words, so here the own part's text varies by a quarter
/// and some items match more than the threshold of 0.3. With at most 36 out the thresholds on
/// load, 64, never act.
fn sglang_21199(seed: u64, cost: &DeviceCost) -> Workload {
    let mut random = Random::new(seed);
    let mean = cost.item(7252) / (0.8 * 2.0);
    let mut at = 0.0;
    let item = |_| {
        at += random.exponential(mean);
        let text = 7252.0 * (0.75 + 0.5 * random.unit());
        Arrival {
            at: Duration::from_secs_f64(at),
            prefix: 0,
            prefix_positions: 2548,
            response_tokens: 7252,
            text: vec![(0, 2548), (random.bits(), text as u32)],
            ..Arrival::default()
        }
    };
    let items = (0..400).map(item).collect();
    let base = closed("sglang 21199", 2, vec![items]);
    Workload { concurrency: 36, is_open: true, ..base }
}

/// After PrimeIntellect-ai/prime-rl pull request 3255: consistent hashing pinned sessions to an
/// engine whose cache was too small for all of them, hits fell from 98 to 5 %, and the other three
/// engines had nothing to do.
///
/// Taken from there: four engines, sessions of turns that follow each other, caches that hold a
/// fair share of the sessions and not much more. The numbers are made up: 40 sessions of 20 to 60
/// turns on a prefix of 2,000 positions each, and room for 11 prefixes per engine.
fn prime_rl_3255(seed: u64) -> Workload {
    let mut random = Random::new(seed);
    let mut items: Vec<Arrival> = Vec::new();
    for session in 0..40 {
        let turns = 20 + random.below(41);
        for turn in 0..turns {
            let own = random.bits();
            let tokens = random.log_normal(200.0, 0.5).clamp(16.0, 1024.0) as u32;
            items.push(Arrival {
                after: (turn > 0).then(|| items.len() - 1),
                prefix: session,
                prefix_positions: 2000,
                response_tokens: tokens,
                text: vec![(0, 200), (session + 1, 1800), (own, tokens)],
                ..Arrival::default()
            });
        }
    }
    let base = closed("prime-rl 3255", 4, vec![items]);
    Workload { limits: cache_of(11, 2000), ..base }
}
