use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::placement::{
    Ask, AskGroup, GroupKey, Placement, PlacementSettings, PrefixDigest, ReplicaId, Report, Ticket,
};
use crate::simulate::random::mix;
use crate::simulate::{Arrival, DeviceCost, Load, Policy};

/// Our placement, with predictions of the cost model and reports as replicas send them.
#[derive(Debug)]
pub struct Sleuth {
    settings: PlacementSettings,
    placement: Placement,
    cost: DeviceCost,
    ids: Vec<ReplicaId>,
    tenant: Arc<str>,
    groups: HashMap<u64, GroupKey>,
    out: HashMap<usize, Ticket>,
}

// === impl Sleuth ===

impl Sleuth {
    /// Places with these settings.
    pub fn new(settings: PlacementSettings) -> Self {
        Self {
            placement: Placement::new(settings.clone()),
            settings,
            cost: DeviceCost::default(),
            ids: Vec::new(),
            tenant: Arc::from("simulated"),
            groups: HashMap::new(),
            out: HashMap::new(),
        }
    }
}

impl Default for Sleuth {
    fn default() -> Self {
        Self::new(PlacementSettings::default())
    }
}

impl Sleuth {
    fn name_group(&mut self, arrival: &Arrival) {
        if let Some(group) = arrival.group {
            let tenant = &self.tenant;
            let key = || GroupKey { tenant: Arc::clone(tenant), id: Arc::from(group.to_string()) };
            self.groups.entry(group).or_insert_with(key);
        }
    }
}

impl Policy for Sleuth {
    fn name(&self) -> &'static str {
        "sleuth"
    }

    fn begin(&mut self, replicas: usize, cost: &DeviceCost) {
        *self = Self::new(self.settings.clone());
        self.cost = *cost;
        self.ids = (0..replicas).map(|i| ReplicaId::new(format!("replica-{i}"))).collect();
        self.placement.set_replicas(&self.ids, Duration::ZERO);
        let report = Report { is_first: true, versions: versions(), ..Report::default() };
        for id in &self.ids {
            self.placement.report(id, &report, Duration::ZERO);
        }
    }

    fn patience(&mut self, arrival: &Arrival, now: Duration) -> Duration {
        self.name_group(arrival);
        self.placement.patience(&ask(arrival, &self.groups, &self.cost), now)
    }

    fn place(&mut self, item: usize, arrival: &Arrival, now: Duration) -> usize {
        self.place_together(&[(item, arrival)], now).first().copied().unwrap_or(0)
    }

    fn place_together(&mut self, waiting: &[(usize, &Arrival)], now: Duration) -> Vec<usize> {
        for (_, arrival) in waiting {
            self.name_group(arrival);
        }
        let Self { groups, cost, .. } = self;
        let ask = |(_, arrival): &(usize, &Arrival)| ask(arrival, groups, cost);
        let asks: Vec<Ask<'_>> = waiting.iter().map(ask).collect();
        let all = self.placement.place_together(&asks, now);
        let mut replicas = Vec::with_capacity(all.len());
        for (&(item, _), placed) in waiting.iter().zip(all) {
            // All replicas are there and answer with one version, so that there always is a place.
            let Ok(placed) = placed else {
                replicas.push(0);
                continue;
            };
            self.out.insert(item, placed.ticket);
            let place = self.ids.binary_search_by(|id| order(id).cmp(&order(&placed.replica)));
            replicas.push(place.unwrap_or(0));
        }
        replicas
    }

    fn ended(&mut self, item: usize, _replica: usize, now: Duration) {
        if let Some(ticket) = self.out.remove(&item) {
            self.placement.end(ticket, now, true);
        }
    }

    fn report(&mut self, replica: usize, load: &Load, now: Duration) {
        let digests = |prefixes: &[u64]| prefixes.iter().map(|&prefix| digest(prefix)).collect();
        let report = Report {
            queue: load.queue,
            added: digests(&load.added),
            removed: digests(&load.removed),
            is_first: false,
            versions: versions(),
            draining: false,
        };
        self.placement.report(&self.ids[replica], &report, now);
    }
}

fn ask<'a>(arrival: &Arrival, groups: &'a HashMap<u64, GroupKey>, cost: &DeviceCost) -> Ask<'a> {
    let key = arrival.group.and_then(|group| groups.get(&group));
    let item_cost = cost.item(arrival.expected_tokens);
    Ask {
        prefix: digest(arrival.prefix),
        group: key.map(|key| AskGroup { key, size: arrival.group_size, item_cost }),
        prefix_cost: cost.prefix(arrival),
        item_cost: cost.item(arrival.response_tokens),
        version: None,
        splittable: true,
        avoid: &[],
        before: None,
    }
}

fn versions() -> Vec<Arc<str>> {
    vec![Arc::from("simulated")]
}

/// Numbered names in the order of their numbers.
fn order(id: &ReplicaId) -> (usize, &str) {
    (id.as_str().len(), id.as_str())
}

fn digest(prefix: u64) -> PrefixDigest {
    let mut digest = [0; 32];
    for (number, chunk) in digest.chunks_mut(8).enumerate() {
        chunk.copy_from_slice(&mix(prefix ^ mix(number as u64 + 1)).to_le_bytes());
    }
    digest
}
