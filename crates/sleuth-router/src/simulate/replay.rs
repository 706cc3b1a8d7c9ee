use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use super::bound::lower_bound;
use super::device::Device;
use super::{Arrival, DeviceCost, Load, Outcome, Policy, Workload};

/// How often a replica reports, and how long a report is on its way.
const REPORT: Nanos = 50_000_000;

type Nanos = u64;

/// Ordered by time, and as they were planned where that is the same.
type Planned = Reverse<(Nanos, u64, Event)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrives {
        item: usize,
    },
    /// Items are placed; `waited` where they have waited for others.
    Places {
        waited: bool,
    },
    Finishes {
        replica: usize,
    },
    Reports,
    Delivers,
}

struct Replay<'a> {
    workload: &'a Workload,
    arrivals: Vec<&'a Arrival>,
    devices: Vec<Device>,
    events: BinaryHeap<Planned>,
    planned: u64,
    now: Nanos,
    /// Items that wait for each item's end.
    followers: Vec<Vec<usize>>,
    /// When items came, where they are, and how often they ended.
    came: Vec<Nanos>,
    ended: Vec<u8>,
    out: usize,
    held_back: VecDeque<usize>,
    deliveries: VecDeque<(usize, Load)>,
    latencies: Vec<f64>,
    /// Of the step.
    left: usize,
    makespan: Nanos,
}

/// Replays a workload. Replicas that a policy names beyond those there are count modulo.
pub fn run(workload: &Workload, policy: &mut dyn Policy, cost: &DeviceCost) -> Outcome {
    let mut replay = Replay::new(workload, cost);
    policy.begin(workload.speeds.len(), cost);
    let mut first = 0;
    for step in &workload.steps {
        replay.step(first, step.len(), policy);
        first += step.len();
    }
    replay.outcome(policy.name(), lower_bound(workload, cost))
}

// === impl Replay ===

impl<'a> Replay<'a> {
    fn new(workload: &'a Workload, cost: &DeviceCost) -> Self {
        let arrivals: Vec<&Arrival> = workload.steps.iter().flatten().collect();
        let device = |&speed: &f64| Device::new(workload.limits, *cost, speed.max(1e-3));
        Self {
            workload,
            devices: workload.speeds.iter().map(device).collect(),
            events: BinaryHeap::new(),
            planned: 0,
            now: 0,
            followers: vec![Vec::new(); arrivals.len()],
            came: vec![0; arrivals.len()],
            ended: vec![0; arrivals.len()],
            out: 0,
            held_back: VecDeque::new(),
            deliveries: VecDeque::new(),
            latencies: Vec::with_capacity(arrivals.len()),
            left: 0,
            makespan: 0,
            arrivals,
        }
    }

    /// Runs one step to its end.
    fn step(&mut self, first: usize, items: usize, policy: &mut dyn Policy) {
        let began = self.now;
        self.left = items;
        self.events.clear();
        // What is on its way reaches the router before the next step.
        while let Some((replica, load)) = self.deliveries.pop_front() {
            policy.report(replica, &load, time(self.now));
        }
        for item in first..first + items {
            match self.arrivals[item].after.map(|after| first + after).filter(|&after| after < item)
            {
                Some(after) => self.followers[after].push(item),
                None => self.plan(nanos(self.arrivals[item].at), Event::Arrives { item }),
            }
        }
        self.plan(0, Event::Reports);
        while self.left > 0
            && let Some(Reverse((at, _, event))) = self.events.pop()
        {
            self.now = at;
            self.handle(event, policy);
            // Whatever comes at the same time may share a batch.
            if self.events.peek().is_none_or(|Reverse((next, _, _))| *next > at) {
                self.start_devices();
            }
        }
        self.makespan += self.now - began;
    }

    fn handle(&mut self, event: Event, policy: &mut dyn Policy) {
        match event {
            Event::Arrives { item } => {
                self.came[item] = self.now;
                self.held_back.push_back(item);
                // When all that comes now has come.
                self.plan(0, Event::Places { waited: false });
            }
            Event::Places { waited } => self.place(waited, policy),
            Event::Finishes { replica } => {
                for item in self.devices[replica].finish().map_or(Vec::new(), |batch| batch.items) {
                    self.end(item, replica, policy);
                }
                if !self.held_back.is_empty() {
                    self.plan(0, Event::Places { waited: false });
                }
            }
            Event::Reports => {
                for (replica, device) in self.devices.iter_mut().enumerate() {
                    let load = device.load(&self.arrivals, seconds(self.now));
                    self.deliveries.push_back((replica, load));
                }
                self.plan(REPORT, Event::Delivers);
                self.plan(REPORT, Event::Reports);
            }
            Event::Delivers => {
                for _ in 0..self.devices.len() {
                    if let Some((replica, load)) = self.deliveries.pop_front() {
                        policy.report(replica, &load, time(self.now));
                    }
                }
            }
        }
    }

    /// Sends what is held back, as far as the workload allows and the policy does not wait.
    fn place(&mut self, waited: bool, policy: &mut dyn Policy) {
        let limit = self.workload.concurrency;
        let free = if limit == 0 { usize::MAX } else { limit.saturating_sub(self.out) };
        let (mut waiting, mut longest) = (Vec::new(), Duration::ZERO);
        for item in std::mem::take(&mut self.held_back) {
            let arrival = self.arrivals[item];
            let mut patience = Duration::ZERO;
            if !waited {
                patience = policy.patience(arrival, time(self.now));
            }
            longest = longest.max(patience);
            if patience.is_zero() && waiting.len() < free {
                waiting.push((item, arrival));
            } else {
                self.held_back.push_back(item);
            }
        }
        if !longest.is_zero() {
            self.plan(nanos(longest), Event::Places { waited: true });
        }
        let replicas = policy.place_together(&waiting, time(self.now));
        for ((item, arrival), replica) in waiting.into_iter().zip(replicas) {
            self.out += 1;
            if limit > 0 {
                // Until there was a place for it, whoever sends had it.
                self.came[item] = self.now;
            }
            let replica = replica % self.devices.len();
            self.devices[replica].push(item, arrival);
        }
    }

    fn end(&mut self, item: usize, replica: usize, policy: &mut dyn Policy) {
        self.out -= 1;
        self.left -= 1;
        self.ended[item] += 1;
        self.latencies.push(seconds(self.now - self.came[item]));
        policy.ended(item, replica, time(self.now));
        for follower in std::mem::take(&mut self.followers[item]) {
            self.plan(nanos(self.arrivals[follower].at), Event::Arrives { item: follower });
        }
    }

    fn start_devices(&mut self) {
        let now = seconds(self.now);
        for replica in 0..self.devices.len() {
            if let Some(ends) = self.devices[replica].start(&self.arrivals, now) {
                let takes = nanos(Duration::from_secs_f64((ends - now).max(0.0)));
                self.plan(takes, Event::Finishes { replica });
            }
        }
    }

    fn plan(&mut self, delay: Nanos, event: Event) {
        self.planned += 1;
        self.events.push(Reverse((self.now + delay, self.planned, event)));
    }

    fn outcome(mut self, policy: &'static str, lower_bound: f64) -> Outcome {
        self.latencies.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (self.latencies.len() as f64 * share) as usize;
            self.latencies.get(place.min(self.latencies.len().saturating_sub(1))).copied()
        };
        let busy: Vec<f64> = self.devices.iter().map(|device| device.busy).collect();
        let mean = busy.iter().sum::<f64>() / busy.len() as f64;
        let computations = self.devices.iter().map(|device| device.computed).sum();
        let items = || self.devices.iter().map(|device| device.items);
        let all = self.arrivals.len().max(1) as f64;
        Outcome {
            workload: self.workload.name.clone(),
            policy,
            makespan: seconds(self.makespan),
            lower_bound,
            p50: at(0.5).unwrap_or(0.0),
            p99: at(0.99).unwrap_or(0.0),
            hit_rate: 1.0 - computations as f64 / all,
            work: mean * busy.len() as f64,
            batches: self.devices.iter().map(|device| device.batches).sum(),
            computations,
            prefixes: self.workload.prefixes(),
            imbalance: busy.iter().copied().fold(0.0, f64::max) / mean.max(1e-12),
            fewest: items().min().unwrap_or(0),
            most: items().max().unwrap_or(0),
            ended: self.ended.iter().map(|&times| usize::from(times == 1)).sum(),
        }
    }
}

fn time(nanos: Nanos) -> Duration {
    Duration::from_nanos(nanos)
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}

fn nanos(time: Duration) -> Nanos {
    time.as_nanos() as Nanos
}
