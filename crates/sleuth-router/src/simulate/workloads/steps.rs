use std::time::Duration;

use super::{Arrival, Random, Shape, Workload, closed};

/// Training steps: everything at once, and the next when all is done.
pub(super) fn all(seed: u64) -> Vec<Workload> {
    let tail = Shape { sigma: 1.0, ..Shape::STEP };
    let no_hints = Shape { hints: false, ..tail };
    let groups_of_64 = Shape { size: 64, sigma: 0.5, ..Shape::STEP };
    let large = Shape { groups: 512, sigma: 0.5, ..Shape::STEP };
    vec![
        closed("64 x 8, equal, one step", 8, steps(Shape::STEP, 1, seed)),
        closed("64 x 8, heavy tail, one step", 8, steps(tail, 1, seed)),
        closed("64 x 8, heavy tail, 10 steps", 8, steps(tail, 10, seed)),
        closed("64 x 8, heavy tail, 10 steps, no hints", 8, steps(no_hints, 10, seed)),
        closed("64 x 8, heavy tail, 10 steps, mixed order", 8, mixed(steps(tail, 10, seed), seed)),
        closed("64 x 8, heavy tail, 10 steps, sent over 10 ms", 8, sent(steps(tail, 10, seed))),
        closed("64 x 8, growing lengths, 10 steps", 8, growing(seed)),
        closed("64 x 64, 3 steps", 8, steps(groups_of_64, 3, seed)),
        closed("512 x 8 over 64, 5 steps", 64, steps(large, 5, seed)),
        closed("one group of 256 alone, 3 steps", 8, alone(seed)),
        closed("one of 256 among 32 of 8, 5 steps", 8, uneven(seed)),
        slowed(seed),
    ]
}

fn steps(shape: Shape, count: u64, seed: u64) -> Vec<Vec<Arrival>> {
    let mut random = Random::new(seed);
    (0..count).map(|step| shape.step(step * shape.groups as u64, &mut random)).collect()
}

/// Items of all groups in any order.
fn mixed(mut steps: Vec<Vec<Arrival>>, seed: u64) -> Vec<Vec<Arrival>> {
    let mut random = Random::new(seed ^ 1);
    for step in &mut steps {
        for place in (1..step.len()).rev() {
            step.swap(place, random.below(place + 1));
        }
    }
    steps
}

/// A client needs some time to send a step: 20 µs per item.
fn sent(mut steps: Vec<Vec<Arrival>>) -> Vec<Vec<Arrival>> {
    for step in &mut steps {
        for (place, item) in step.iter_mut().enumerate() {
            item.at = Duration::from_micros(20 * place as u64);
        }
    }
    steps
}

/// Responses grow from 48 tokens to 264 as training goes on.
fn growing(seed: u64) -> Vec<Vec<Arrival>> {
    let mut random = Random::new(seed);
    let shape = |step: u64| {
        let tokens = 48.0 + 24.0 * step as f64;
        Shape { tokens, sigma: 0.5, ..Shape::STEP }
    };
    (0..10).map(|step| shape(step).step(step * 64, &mut random)).collect()
}

fn alone(seed: u64) -> Vec<Vec<Arrival>> {
    steps(Shape { groups: 1, size: 256, sigma: 0.5, ..Shape::STEP }, 3, seed)
}

fn uneven(seed: u64) -> Vec<Vec<Arrival>> {
    let mut random = Random::new(seed);
    let many = Shape { groups: 32, sigma: 0.5, ..Shape::STEP };
    let large = Shape { groups: 1, size: 256, ..many };
    let step = |step: u64| {
        let mut items = many.step(step * 33, &mut random);
        // The large one comes in the middle, where nobody waits for it.
        let at = items.len() / 2;
        items.splice(at..at, large.step(step * 33 + 32, &mut random));
        items
    };
    (0..5).map(step).collect()
}

/// One of eight replicas takes twice as long.
fn slowed(seed: u64) -> Workload {
    let shape = Shape { sigma: 0.5, ..Shape::STEP };
    let mut workload = closed("one replica at half speed, 10 steps", 8, steps(shape, 10, seed));
    workload.speeds[3] = 0.5;
    workload
}
