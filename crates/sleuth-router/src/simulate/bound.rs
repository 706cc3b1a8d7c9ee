use std::collections::{HashMap, HashSet};

use super::{Arrival, DeviceCost, Workload};

/// Seconds that no placement can go below; [`super::Outcome::ratio`] says how it is made up.
pub(super) fn lower_bound(workload: &Workload, cost: &DeviceCost) -> f64 {
    let mut known = HashSet::new();
    workload.steps.iter().map(|step| step_bound(workload, step, cost, &mut known)).sum()
}

fn step_bound(
    workload: &Workload,
    step: &[Arrival],
    cost: &DeviceCost,
    known: &mut HashSet<u64>,
) -> f64 {
    let longest = longest_piece(workload, step, cost, known);
    let mut order: Vec<&Arrival> = step.iter().collect();
    // An item that waits for others comes at the step's start as far as work is concerned.
    let at = |arrival: &Arrival| {
        if arrival.after.is_some() { 0.0 } else { arrival.at.as_secs_f64() }
    };
    order.sort_by(|a, b| at(a).total_cmp(&at(b)));
    let mut first_use: HashMap<u64, usize> = HashMap::new();
    for (place, arrival) in order.iter().enumerate() {
        if known.insert(arrival.prefix) {
            first_use.insert(arrival.prefix, place);
        }
    }
    let limits = workload.limits;
    let (mut seconds, mut tokens, mut items, mut bound) = (0.0, 0.0, 0.0, longest);
    for (place, arrival) in order.iter().enumerate().rev() {
        items += 1.0;
        tokens += f64::from(arrival.response_tokens);
        seconds += cost.item(arrival.response_tokens);
        if first_use.get(&arrival.prefix) == Some(&place) {
            tokens += f64::from(arrival.prefix_positions);
            seconds += cost.prefix(arrival);
        }
        let batches = (tokens / limits.batch_tokens as f64).max(items / limits.batch_items as f64);
        let work = seconds + batches * cost.batch_seconds;
        bound = bound.max(at(arrival) + work / workload.speeds.iter().sum::<f64>());
    }
    bound
}

fn longest_piece(
    workload: &Workload,
    step: &[Arrival],
    cost: &DeviceCost,
    known: &HashSet<u64>,
) -> f64 {
    let fastest = workload.speeds.iter().copied().fold(0.0, f64::max);
    // When each prefix that no step before had can be there, without a batch's fixed time.
    let mut there: HashMap<u64, f64> = HashMap::new();
    for arrival in step.iter().filter(|arrival| !known.contains(&arrival.prefix)) {
        let first = if arrival.after.is_some() { 0.0 } else { arrival.at.as_secs_f64() };
        let at = first + cost.prefix(arrival) / fastest;
        there
            .entry(arrival.prefix)
            .and_modify(|earliest| *earliest = earliest.min(at))
            .or_insert(at);
    }
    let mut ends: Vec<f64> = Vec::with_capacity(step.len());
    for arrival in step {
        let before = arrival.after.and_then(|after| ends.get(after)).copied().unwrap_or(0.0);
        let comes = before + arrival.at.as_secs_f64();
        let starts = there.get(&arrival.prefix).map_or(comes, |there| there.max(comes));
        let own = cost.item(arrival.response_tokens) + cost.batch_seconds;
        ends.push(starts + own / fastest);
    }
    ends.into_iter().fold(0.0, f64::max)
}
