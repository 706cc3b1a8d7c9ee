use std::time::Duration;

use super::{Arrival, DeviceCost, Random, Shape, Workload, closed};

/// Replicas that traffic goes to.
const REPLICAS: usize = 8;

/// Items that come by the clock.
pub(super) fn all(seed: u64, cost: &DeviceCost) -> Vec<Workload> {
    let hinted = Shape { groups: 1000, sigma: 0.5, ..Shape::STEP };
    let bare = Shape { hints: false, ..hinted };
    vec![
        open("Poisson, 50 % load", poisson(hinted, 0.5, Duration::ZERO, seed, cost)),
        open("Poisson, 80 % load", poisson(hinted, 0.8, Duration::ZERO, seed, cost)),
        open("Poisson, 80 % load, no hints", poisson(bare, 0.8, Duration::ZERO, seed, cost)),
        open("Poisson, 80 % load, members over 2 s", poisson(hinted, 0.8, 2 * SECOND, seed, cost)),
    ]
}

const SECOND: Duration = Duration::from_secs(1);

fn open(name: &str, items: Vec<Arrival>) -> Workload {
    Workload { is_open: true, ..closed(name, REPLICAS, vec![items]) }
}

/// Groups that come independently of each other, at this share of what the replicas can do with
/// each prefix once and full batches. Members come evenly over `spread`, as they are generated.
fn poisson(
    shape: Shape,
    share: f64,
    spread: Duration,
    seed: u64,
    cost: &DeviceCost,
) -> Vec<Arrival> {
    let mut random = Random::new(seed);
    let (mut items, mut at) = (Vec::new(), 0.0);
    for prefix in 0..shape.groups as u64 {
        let group = shape.group(prefix, &mut random);
        let own: f64 = group.iter().map(|item| cost.item(item.response_tokens)).sum();
        let all = own + cost.prefix(&group[0]);
        at += random.exponential(all / (share * REPLICAS as f64));
        for item in group {
            let later = spread.mul_f64(random.unit());
            items.push(Arrival { at: Duration::from_secs_f64(at) + later, ..item });
        }
    }
    items.sort_by_key(|item| item.at);
    items
}
