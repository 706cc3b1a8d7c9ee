//! Replicas as a placement may meet them, and items that run there.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

pub(super) const REPLICAS: usize = 5;
pub(super) const GROUPS: usize = 6;

/// What may happen.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Place { group: Option<usize>, version: Option<u8>, splittable: bool, millis: u16 },
    End { which: usize, failed: bool },
    Wait { millis: u16 },
    Health { replica: usize, weight: f64 },
    Drain { replica: usize, draining: bool },
    Swap { replica: usize, versions: Vec<u8> },
    Members { present: [bool; REPLICAS] },
    Lost { replica: usize },
    Queue { replica: usize, seconds: f64 },
}

struct Item {
    group: Option<usize>,
    /// What it will be answered with; `None` where it fails.
    answer: Option<String>,
    placed: Placed,
    avoid: Vec<ReplicaId>,
}

#[derive(Clone)]
struct Model {
    present: bool,
    weight: f64,
    draining: bool,
    versions: Vec<String>,
    cache: HashSet<PrefixDigest>,
    /// A group ends with the version it began with here.
    began: HashMap<usize, String>,
}

pub(super) struct World {
    pub(super) placement: Placement,
    replicas: Vec<Model>,
    items: Vec<Item>,
    /// To be tried again: the group, and where not.
    failed: Vec<(Option<usize>, Vec<ReplicaId>)>,
    verdicts: HashMap<usize, String>,
    pub(super) now: Duration,
    pub(super) computed: u64,
    pub(super) reasons: [u64; Reason::ALL.len()],
}

pub(super) fn event() -> impl Strategy<Value = Event> {
    let replica = || 0..REPLICAS;
    let versions = prop::sample::select(vec![vec![1], vec![2], vec![1, 2], vec![2, 1]]);
    let group = prop::option::weighted(0.9, 0..GROUPS);
    let version = prop::option::weighted(0.1, 1u8..3);
    prop_oneof![
        12 => (group, version, any::<bool>(), 0u16..50).prop_map(|(group, version, splittable, millis)| {
            Event::Place { group, version, splittable, millis }
        }),
        8 => (any::<usize>(), prop::bool::weighted(0.2))
            .prop_map(|(which, failed)| Event::End { which, failed }),
        2 => (0u16..2000).prop_map(|millis| Event::Wait { millis }),
        1 => (replica(), prop::sample::select(vec![0.0, 0.1, 1.0]))
            .prop_map(|(replica, weight)| Event::Health { replica, weight }),
        1 => (replica(), any::<bool>())
            .prop_map(|(replica, draining)| Event::Drain { replica, draining }),
        1 => (replica(), versions).prop_map(|(replica, versions)| Event::Swap { replica, versions }),
        1 => any::<[bool; REPLICAS]>().prop_map(|present| Event::Members { present }),
        1 => replica().prop_map(|replica| Event::Lost { replica }),
        1 => (replica(), 0.0..1.0f64)
            .prop_map(|(replica, seconds)| Event::Queue { replica, seconds }),
    ]
}

// === impl World ===

impl World {
    pub(super) fn new(settings: PlacementSettings) -> Self {
        let model = Model {
            present: true,
            weight: 1.0,
            draining: false,
            versions: vec!["v1".to_owned()],
            cache: HashSet::new(),
            began: HashMap::new(),
        };
        let mut world = Self {
            placement: Placement::new(settings),
            replicas: vec![model; REPLICAS],
            items: Vec::new(),
            failed: Vec::new(),
            verdicts: HashMap::new(),
            now: Duration::ZERO,
            computed: 0,
            reasons: [0; Reason::ALL.len()],
        };
        world.members([true; REPLICAS]);
        world
    }

    pub(super) fn step(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Place { group, version, splittable, millis } => {
                let (group, avoid) = self.failed.pop().unwrap_or((group, Vec::new()));
                let version = version.map(|version| format!("v{version}"));
                self.place(group, version.as_deref(), splittable, f64::from(millis) / 1e3, avoid)?;
            }
            Event::End { which, failed } if !self.items.is_empty() => {
                let item = self.items.swap_remove(which % self.items.len());
                self.end(item, failed)?;
            }
            Event::End { .. } => {}
            Event::Wait { millis } => self.now += Duration::from_millis(u64::from(millis)),
            Event::Health { replica, weight } => {
                self.replicas[replica].weight = weight;
                self.placement.set_health(&ids(REPLICAS)[replica], weight, self.now);
            }
            Event::Drain { replica, draining } => {
                self.replicas[replica].draining = draining;
                self.report(replica, 0.0);
            }
            Event::Swap { replica, versions } => {
                let model = &mut self.replicas[replica];
                model.versions = versions.iter().map(|v| format!("v{v}")).collect();
                // With what is gone it cannot answer, whatever a group began with.
                let Model { versions, began, .. } = model;
                began.retain(|_, version| versions.contains(version));
                self.report(replica, 0.0);
            }
            Event::Members { present } => self.members(present),
            Event::Lost { replica } => self.placement.lost(&ids(REPLICAS)[replica]),
            Event::Queue { replica, seconds } => self.report(replica, seconds),
        }
        Ok(())
    }

    /// Ends all there is, and waits until reservations are over.
    pub(super) fn finish(&mut self) -> Result<(), TestCaseError> {
        while let Some(item) = self.items.pop() {
            self.end(item, false)?;
        }
        self.now += 3600 * SECOND;
        self.placement.advance(self.now);
        Ok(())
    }

    fn place(
        &mut self,
        group: Option<usize>,
        version: Option<&str>,
        splittable: bool,
        cost: f64,
        avoid: Vec<ReplicaId>,
    ) -> Result<(), TestCaseError> {
        let name = key(&format!("{group:?}"));
        let number = group.map_or(self.computed, |group| group as u64);
        // Sizes from unknown to more than ever come.
        let size = [0, 1, 4, 16, 64, 1000][group.unwrap_or(0) % 6];
        let asked = AskGroup { key: &name, size, item_cost: 0.02 };
        let ask = Ask {
            prefix: prefix(number),
            group: group.map(|_| asked),
            prefix_cost: 0.01,
            item_cost: cost,
            version,
            splittable,
            avoid: &avoid,
            before: None,
        };
        let placed = if self.computed.is_multiple_of(2) {
            self.placement.place(&ask, self.now)
        } else {
            self.placement.place_together(&[ask], self.now).remove(0)
        };
        let placed = match placed {
            Ok(placed) => placed,
            Err(Unplaced::NoneWithVersion) => return Ok(()),
            Err(_) => {
                prop_assert!(!(0..REPLICAS).any(|replica| self.is_available(replica)));
                return Ok(());
            }
        };
        let replica = self.index(&placed.replica);
        prop_assert!(self.is_available(replica), "{placed:?}");
        prop_assert!(version.is_none() || placed.version.as_deref() == version);
        let required = placed.version.as_deref();
        self.check_avoid(replica, required, &avoid)?;
        self.reasons[placed.reason as usize] += 1;
        let model = &mut self.replicas[replica];
        self.computed += u64::from(model.cache.insert(ask.prefix));
        let own = group.map_or_else(
            || model.versions[0].clone(),
            |group| model.began.entry(group).or_insert_with(|| model.versions[0].clone()).clone(),
        );
        let answer = match required {
            None => Some(own),
            Some(version) => {
                prop_assert!(model.versions.iter().any(|own| own == version), "{placed:?}");
                Some(version.to_owned())
            }
        };
        self.items.push(Item { group, answer, placed, avoid });
        Ok(())
    }

    fn end(&mut self, item: Item, failed: bool) -> Result<(), TestCaseError> {
        let Item { group, answer, placed, mut avoid } = item;
        let replica = self.index(&placed.replica);
        let is_served = |answer: &String| self.replicas[replica].versions.contains(answer);
        let is_gone = placed.version.is_some() && !answer.as_ref().is_some_and(is_served);
        self.placement.end(placed.ticket, self.now, true);
        if let Some(group) = group
            && is_gone
        {
            if !self.verdicts.contains_key(&group) {
                self.placement.unfix_version(&key(&format!("{:?}", Some(group))));
            }
        } else if failed || !self.replicas[replica].present {
            avoid.push(placed.replica);
            self.failed.push((group, avoid));
        } else if let (Some(group), Some(answer)) = (group, answer) {
            let name = key(&format!("{:?}", Some(group)));
            prop_assert!(self.placement.fix_version(&name, &answer, self.now));
            let first = self.verdicts.entry(group).or_insert_with(|| answer.clone());
            prop_assert_eq!(&*first, &answer, "versions of a group are mixed");
        }
        Ok(())
    }

    fn check_avoid(
        &self,
        replica: usize,
        version: Option<&str>,
        avoid: &[ReplicaId],
    ) -> Result<(), TestCaseError> {
        let ids = ids(REPLICAS);
        if avoid.contains(&ids[replica]) {
            let others = (0..REPLICAS).filter(|&other| {
                let versions = &self.replicas[other].versions;
                let offers = version.is_none_or(|version| versions.iter().any(|v| v == version));
                self.is_available(other) && offers && !avoid.contains(&ids[other])
            });
            prop_assert_eq!(others.count(), 0, "an avoided replica was used");
        }
        Ok(())
    }

    fn is_available(&self, replica: usize) -> bool {
        let Model { present, weight, draining, .. } = self.replicas[replica];
        present && weight > 0.0 && !draining
    }

    fn index(&self, id: &ReplicaId) -> usize {
        ids(self.replicas.len()).iter().position(|known| known == id).unwrap()
    }

    fn members(&mut self, present: [bool; REPLICAS]) {
        let ids = ids(REPLICAS);
        let there = |(id, present): (&ReplicaId, bool)| present.then(|| id.clone());
        let members: Vec<ReplicaId> = ids.iter().zip(present).filter_map(there).collect();
        self.placement.set_replicas(&members, self.now);
        for (replica, present) in present.into_iter().enumerate() {
            let model = &mut self.replicas[replica];
            let joined = present && !model.present;
            model.present = present;
            if joined {
                (model.weight, model.draining) = (1.0, false);
                model.cache.clear();
                model.began.clear();
            }
            if present {
                self.report(replica, 0.0);
            }
        }
    }

    fn report(&mut self, replica: usize, queue: f64) {
        let model = &self.replicas[replica];
        let report = Report {
            queue,
            added: model.cache.iter().copied().collect(),
            removed: Vec::new(),
            is_first: true,
            versions: model.versions.iter().map(|version| Arc::from(version.as_str())).collect(),
            draining: model.draining,
        };
        self.placement.report(&ids(REPLICAS)[replica], &report, self.now);
    }
}
