use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lru::LruCache;
use sleuth_core::ModelCard;
use tokio::task::AbortHandle;

use super::{Prices, Wanted};
use crate::RouterSettings;
use crate::asked::KeyDigest;
use crate::health::{Health, weights};
use crate::placement::{GroupKey, Placed, Placement, ReplicaId, Unplaced};
use crate::replica::Replica;
use crate::retry_budget::RetryBudget;
use crate::view::Counts;

/// What the replicas have in common.
pub(super) struct State {
    pub(super) placement: Placement,
    pub(super) members: HashMap<ReplicaId, Member>,
    pub(super) budget: RetryBudget,
    pub(super) counts: Counts,
    /// What the model is called: a replica of another one is left out.
    pub(super) model: Option<Arc<ModelCard>>,
    /// What scores items that ask for no adapter and no version.
    pub(super) card: Option<Arc<ModelCard>>,
    pub(super) prices: Prices,
    /// Groups of which a member has its rewards.
    pub(super) verdicts: LruCache<GroupKey, ()>,
    /// Where items with a key of their caller's went.
    pub(super) keys: LruCache<KeyDigest, ReplicaId>,
}

/// A replica, and how it is.
pub(super) struct Member {
    pub(super) replica: Arc<Replica>,
    pub(super) follower: AbortHandle,
    pub(super) health: Health,
    pub(super) is_connected: bool,
    /// Discovery says that it is about to end.
    pub(super) is_terminating: bool,
    /// Why it takes nothing, where that is not its health.
    pub(super) unfit: Option<String>,
}

/// Groups of which it is remembered that a member has its rewards.
const MOST_GROUPS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// Keys of which it is remembered where they went.
const MOST_KEYS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// What is believed before a replica has said what work costs.
const UNTOLD: Prices = Prices { prefix: 0.01, response_token: 1e-4 };

// === impl State ===

impl State {
    pub(super) fn new(settings: &RouterSettings) -> Self {
        Self {
            placement: Placement::new(settings.placement.clone()),
            members: HashMap::new(),
            budget: RetryBudget::new(settings.retries, Duration::ZERO),
            counts: Counts::default(),
            model: None,
            card: None,
            prices: UNTOLD,
            verdicts: LruCache::new(MOST_GROUPS),
            keys: LruCache::new(MOST_KEYS),
        }
    }

    /// Takes note of an item that was placed.
    pub(super) fn sent(
        &mut self,
        placed: Placed,
        wanted: &Wanted,
        now: Duration,
    ) -> Result<(Arc<Replica>, Placed), Unplaced> {
        let Some(member) = self.members.get(&placed.replica) else {
            self.placement.end(placed.ticket, now, false);
            return Err(Unplaced::NoReplicas);
        };
        let replica = Arc::clone(&member.replica);
        if wanted.avoid.is_empty() {
            self.budget.deposit();
        }
        self.counts.placed(&wanted.ask(), &placed);
        if let Some(key) = wanted.asked.key {
            self.keys.put(key, placed.replica.clone());
        }
        Ok((replica, placed))
    }

    /// Works out anew what follows from who is there and how they are.
    pub(super) fn refresh(&mut self, now: Duration, settings: &RouterSettings) {
        self.weigh(now, settings);
        let fit = || self.members.values().filter(|m| m.is_connected && m.unfit.is_none());
        let newest = fit()
            .filter_map(|member| member.replica.card())
            .max_by(|a, b| a.version.cmp(&b.version));
        let prices = Prices::mean(fit().map(|member| member.replica.load()));
        // Where nobody is there now, the last one known is described.
        self.card = newest.or_else(|| self.card.take());
        self.prices = prices.unwrap_or(self.prices);
    }

    /// Tells placement how much of its share each replica gets.
    fn weigh(&mut self, now: Duration, settings: &RouterSettings) {
        let usable = |member: &Member| member.is_connected && member.unfit.is_none();
        let fit: Vec<(&ReplicaId, &Health)> = self
            .members
            .iter()
            .filter(|(_, member)| usable(member))
            .map(|(id, member)| (id, &member.health))
            .collect();
        let healths: Vec<&Health> = fit.iter().map(|(_, health)| *health).collect();
        let weights = weights(&healths, settings.max_ejected, now);
        for ((id, _), weight) in fit.into_iter().zip(weights) {
            self.placement.set_health(id, weight, now);
        }
        for (id, member) in &self.members {
            if !usable(member) {
                self.placement.set_health(id, 0.0, now);
            }
        }
    }
}
