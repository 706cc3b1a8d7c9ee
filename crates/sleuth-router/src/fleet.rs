//! The replicas together: who is there, how they are, and where items go.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use lru::LruCache;
use sleuth_core::{Load, LoadReport, ModelCard};
use sleuth_service::Caller;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::asked::{Asked, KeyDigest};
use crate::discovery::{Endpoint, EndpointState};
use crate::follow::follow;
use crate::health::{Health, Outcome, weights};
use crate::judge::Cause;
use crate::placement::{Ask, GroupKey, Placed, Placement, ReplicaId, Report, Unplaced};
use crate::replica::Replica;
use crate::retry_budget::RetryBudget;
use crate::view::{Counts, FleetView, ReplicaView};
use crate::{Dial, RouterSettings};

/// The replicas. Clones are handles to the same ones.
#[derive(Clone)]
pub(crate) struct Fleet {
    shared: Arc<Shared>,
}

struct Shared {
    settings: RouterSettings,
    dial: Arc<dyn Dial>,
    began: Instant,
    state: Mutex<State>,
    /// Somebody may take items now who did not before.
    changed: Notify,
    /// Replicas that may be tried to be reached at a time.
    reaching: Semaphore,
    /// Items that want a place, and a sign that one has come.
    waiting: Mutex<Vec<Waiting>>,
    arrived: Notify,
}

/// An item that wants a place.
#[derive(Clone)]
pub(crate) struct Wanted {
    pub(crate) asked: Arc<Asked>,
    /// Beside what the caller requires.
    pub(crate) version: Option<String>,
    pub(crate) avoid: Vec<ReplicaId>,
}

struct Waiting {
    wanted: Wanted,
    arrived: Instant,
    reply: oneshot::Sender<Result<Place, Unplaced>>,
}

struct State {
    placement: Placement,
    members: HashMap<ReplicaId, Member>,
    budget: RetryBudget,
    counts: Counts,
    /// What the model is called: a replica of another one is left out.
    model: Option<Arc<ModelCard>>,
    /// What scores items that ask for no adapter and no version.
    card: Option<Arc<ModelCard>>,
    prices: Prices,
    /// Groups of which a member has its rewards.
    verdicts: LruCache<GroupKey, ()>,
    /// Where items with a key of their caller's went.
    keys: LruCache<KeyDigest, ReplicaId>,
}

struct Member {
    replica: Arc<Replica>,
    follower: AbortHandle,
    health: Health,
    is_connected: bool,
    /// Discovery says that it is about to end.
    is_terminating: bool,
    /// Why it takes nothing, where that is not its health.
    unfit: Option<String>,
}

/// An item's place. Dropped, it is given back as not computed.
pub(crate) struct Place {
    fleet: Fleet,
    pub(crate) replica: Arc<Replica>,
    pub(crate) placed: Option<Placed>,
    began: Instant,
}

/// What items cost a replica, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prices {
    pub(crate) prefix: f64,
    pub(crate) response_token: f64,
}

/// Groups of which it is remembered that a member has its rewards.
const MOST_GROUPS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// Keys of which it is remembered where they went.
const MOST_KEYS: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// How soon it is seen whether items may still wait for others.
const MOMENT: Duration = Duration::from_millis(1);
/// Replicas that are tried to be reached at a time.
const MOST_REACHED: usize = 64;
/// What is believed before a replica has said what work costs.
const UNTOLD: Prices = Prices { prefix: 0.01, response_token: 1e-4 };

// === impl Fleet ===

impl Fleet {
    pub(crate) fn new(settings: RouterSettings, dial: Arc<dyn Dial>) -> Self {
        let state = State {
            placement: Placement::new(settings.placement.clone()),
            members: HashMap::new(),
            budget: RetryBudget::new(settings.retries, Duration::ZERO),
            counts: Counts::default(),
            model: None,
            card: None,
            prices: UNTOLD,
            verdicts: LruCache::new(MOST_GROUPS),
            keys: LruCache::new(MOST_KEYS),
        };
        let began = Instant::now();
        let (state, changed) = (Mutex::new(state), Notify::new());
        let reaching = Semaphore::new(MOST_REACHED);
        let (waiting, arrived) = (Mutex::default(), Notify::new());
        let shared = Shared { settings, dial, began, state, changed, reaching, waiting, arrived };
        Self { shared: Arc::new(shared) }
    }

    pub(crate) fn settings(&self) -> &RouterSettings {
        &self.shared.settings
    }

    pub(crate) fn dial(&self) -> &dyn Dial {
        &*self.shared.dial
    }

    /// A turn at reaching a replica: a thousand that do not answer must not hold up the process.
    pub(crate) async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed.
        self.shared.reaching.acquire().await.ok()
    }

    /// Takes over who is there. To be called within a tokio runtime.
    pub(crate) fn set_members(&self, endpoints: &[Endpoint]) {
        let now = self.now();
        let mut state = self.lock();
        let known: HashMap<ReplicaId, &Endpoint> =
            endpoints.iter().map(|e| (ReplicaId::new(Arc::clone(&e.name)), e)).collect();
        state.members.retain(|id, member| {
            // Another address under the same name is another process.
            let stays = known.get(id).is_some_and(|e| e.url == member.replica.url);
            if !stays {
                tracing::info!(replica = %id, "replica left");
                member.follower.abort();
                member.replica.disconnected();
            }
            stays
        });
        for (id, endpoint) in &known {
            let is_terminating = endpoint.state == EndpointState::Terminating;
            if let Some(member) = state.members.get_mut(id) {
                member.is_terminating = is_terminating;
                continue;
            }
            tracing::info!(replica = %id, url = endpoint.url, "replica joined");
            let member = self.join(id.clone(), endpoint);
            state.members.insert(id.clone(), member);
        }
        let ids: Vec<ReplicaId> = state.members.keys().cloned().collect();
        state.placement.set_replicas(&ids, now);
        state.refresh(now, &self.shared.settings);
        drop(state);
        self.shared.changed.notify_waiters();
    }

    fn join(&self, id: ReplicaId, endpoint: &Endpoint) -> Member {
        let replica = Arc::new(Replica::new(id, endpoint.url.clone()));
        let following = tokio::spawn(follow(self.clone(), Arc::clone(&replica)));
        Member {
            replica,
            follower: following.abort_handle(),
            health: Health::new(self.shared.settings.health),
            is_connected: false,
            is_terminating: endpoint.state == EndpointState::Terminating,
            unfit: None,
        }
    }

    /// A replica has been reached: what it is.
    pub(crate) fn reached(&self, replica: &Replica, card: &Arc<ModelCard>) {
        let now = self.now();
        let mut state = self.lock();
        let model = Arc::clone(state.model.get_or_insert_with(|| Arc::clone(card)));
        let Some(member) = state.members.get_mut(&replica.id) else { return };
        member.unfit = (model.name != card.name || model.architecture != card.architecture)
            .then(|| format!("serves {}, not {}", card.name, model.name));
        if let Some(why) = &member.unfit {
            tracing::warn!(replica = %replica.id, why, "replica left out");
        }
        state.refresh(now, &self.shared.settings);
    }

    /// A replica can no longer be reached, or says nothing.
    pub(crate) fn lost(&self, replica: &Replica) {
        let now = self.now();
        let mut state = self.lock();
        if let Some(member) = state.members.get_mut(&replica.id) {
            member.is_connected = false;
        }
        state.placement.lost(&replica.id);
        state.refresh(now, &self.shared.settings);
    }

    pub(crate) fn reported(&self, replica: &Replica, report: LoadReport, is_first: bool) {
        let now = self.now();
        let LoadReport { load, prefixes, draining, .. } = report;
        let mut state = self.lock();
        let is_terminating =
            state.members.get(&replica.id).is_some_and(|member| member.is_terminating);
        let report = Report {
            queue: load.queue.as_secs_f64(),
            added: prefixes.added.iter().map(|prefix| prefix.digest).collect(),
            removed: prefixes.removed,
            is_first,
            versions: load.versions.iter().map(|v| Arc::from(v.as_str())).collect(),
            draining: draining || is_terminating,
        };
        state.placement.report(&replica.id, &report, now);
        if !is_first {
            return;
        }
        if let Some(member) = state.members.get_mut(&replica.id) {
            member.is_connected = true;
        }
        state.refresh(now, &self.shared.settings);
        drop(state);
        self.shared.changed.notify_waiters();
    }

    /// Lets what time alone changes take effect, again and again.
    pub(crate) async fn keep(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.now();
            self.lock().refresh(now, &self.shared.settings);
        }
    }

    /// Finds a place for an item, and waits for one within bounds where none takes items.
    pub(crate) async fn place(&self, wanted: Wanted) -> Result<Place, Unplaced> {
        let until = Instant::now() + self.shared.settings.patience;
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            let why = match self.ask(wanted.clone()).await {
                Ok(place) => return Ok(place),
                Err(why) => why,
            };
            if until <= Instant::now() || wanted.gives_up_on(&why) {
                return Err(why);
            }
            // Health comes back with time alone, so a look now and then is needed too.
            let look = Instant::now() + LOOK;
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(look.min(until)) => {}
            }
        }
    }

    /// Leaves an item with those that are placed together.
    async fn ask(&self, wanted: Wanted) -> Result<Place, Unplaced> {
        let (reply, placed) = oneshot::channel();
        let arrived = Instant::now();
        lock(&self.shared.waiting).push(Waiting { wanted, arrived, reply });
        self.shared.arrived.notify_one();
        // The task that places lives as long as the router.
        placed.await.unwrap_or(Err(Unplaced::NoReplicas))
    }

    /// Places what comes, together with what comes at the same time.
    pub(crate) async fn place_all(&self) {
        loop {
            if self.place_due() {
                // Something that ends may make waiting pointless, so a look comes soon.
                tokio::time::sleep(MOMENT).await;
            } else {
                self.shared.arrived.notified().await;
            }
        }
    }

    /// Places all that need not wait for others; whether something waits.
    fn place_due(&self) -> bool {
        let now = self.now();
        let mut waiting = std::mem::take(&mut *lock(&self.shared.waiting));
        let mut state = self.lock();
        let is_due = |state: &mut State, one: &Waiting| {
            let patience = state.placement.patience(&one.wanted.ask(), now);
            one.arrived.elapsed() >= patience
        };
        // All that is here goes as soon as one of them must.
        let any = waiting.iter().any(|one| is_due(&mut state, one));
        if any {
            waiting.retain(|one| !one.reply.is_closed());
            let asks: Vec<Ask<'_>> = waiting.iter().map(|one| one.wanted.ask()).collect();
            let placed = state.placement.place_together(&asks, now);
            let placed: Vec<_> = placed
                .into_iter()
                .zip(&waiting)
                .map(|(placed, one)| state.sent(placed?, &one.wanted, now))
                .collect();
            drop(state);
            for (one, placed) in waiting.into_iter().zip(placed) {
                let place = placed.map(|(replica, placed)| Place {
                    fleet: self.clone(),
                    replica,
                    placed: Some(placed),
                    began: Instant::now(),
                });
                // Where nobody waits any more, the place is given back as it is dropped.
                drop(one.reply.send(place));
            }
            return false;
        }
        drop(state);
        let waits = !waiting.is_empty();
        lock(&self.shared.waiting).append(&mut waiting);
        waits
    }

    /// Where an item of this key went before.
    pub(crate) fn before(&self, key: &KeyDigest) -> Option<ReplicaId> {
        self.lock().keys.get(key).cloned()
    }

    /// Whether an item may be tried once more; counted.
    pub(crate) fn may_retry(&self, cause: Cause) -> bool {
        let now = self.now();
        let mut state = self.lock();
        // What drains is no fault of anybody: its items must go somewhere.
        let may = cause == Cause::Draining || state.budget.withdraw(now);
        state.counts.retried(cause, may);
        may
    }

    pub(crate) fn fix_version(&self, group: &GroupKey, version: &str) {
        let now = self.now();
        let mut state = self.lock();
        state.placement.fix_version(group, version, now);
        state.verdicts.put(group.clone(), ());
    }

    /// Forgets a version that is gone; false where members of the group have their rewards of it.
    pub(crate) fn unfix_version(&self, group: &GroupKey) -> bool {
        let mut state = self.lock();
        let may = !state.verdicts.contains(group);
        if may {
            state.placement.unfix_version(group);
        }
        may
    }

    /// A replica has let an image go.
    pub(crate) fn lacks_image(&self, replica: &ReplicaId, caller: &Caller, digest: [u8; 32]) {
        let member = self.lock().members.get(replica).map(|member| Arc::clone(&member.replica));
        if let Some(replica) = member {
            replica.lacks_image(caller, digest);
        }
    }

    /// Takes note of how a replica did.
    pub(crate) fn outcome(&self, replica: &ReplicaId, outcome: Outcome) {
        let now = self.now();
        let mut state = self.lock();
        let Some(member) = state.members.get_mut(replica) else { return };
        let ejected = member.health.outcome(now, outcome);
        if ejected {
            tracing::warn!(%replica, "replica ejected");
            state.counts.ejections += 1;
        }
        if outcome != Outcome::Good || ejected {
            state.refresh(now, &self.shared.settings);
        }
    }

    pub(crate) fn count(&self, count: impl FnOnce(&mut Counts)) {
        count(&mut self.lock().counts);
    }

    /// What scores items that ask for no adapter and no version, and what work costs.
    pub(crate) fn card(&self) -> (Option<Arc<ModelCard>>, Prices) {
        let state = self.lock();
        (state.card.clone(), state.prices)
    }

    /// A replica that can be asked something.
    pub(crate) fn any(&self) -> Option<Arc<Replica>> {
        let state = self.lock();
        let mut fit = state.members.values().filter(|m| m.is_connected && m.unfit.is_none());
        fit.next().map(|member| Arc::clone(&member.replica))
    }

    /// Resolves once a replica can be asked something.
    pub(crate) async fn ready(&self) {
        loop {
            let mut changed = std::pin::pin!(self.shared.changed.notified());
            changed.as_mut().enable();
            if self.any().is_some() {
                return;
            }
            changed.await;
        }
    }

    pub(crate) fn view(&self) -> FleetView {
        let now = self.now();
        let state = self.lock();
        let replicas = state.placement.snapshot().into_iter().filter_map(|snapshot| {
            let member = state.members.get(&snapshot.id)?;
            Some(ReplicaView {
                url: member.replica.url.clone(),
                is_connected: member.is_connected,
                is_ejected: member.health.weight(now) < 1.0,
                is_terminating: member.is_terminating,
                unfit: member.unfit.clone(),
                ejections: member.health.ejections(),
                load: member.replica.load(),
                counts: state.counts.of(&snapshot.id),
                snapshot,
            })
        });
        FleetView {
            replicas: replicas.collect(),
            groups: state.placement.groups(),
            counts: state.counts.clone(),
        }
    }

    fn now(&self) -> Duration {
        self.shared.began.elapsed()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

/// Nothing panics while one of these is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often an item that found no place looks again.
const LOOK: Duration = Duration::from_millis(100);

// === impl Wanted ===

impl Wanted {
    fn ask(&self) -> Ask<'_> {
        self.asked.ask(self.version.as_deref(), &self.avoid)
    }

    /// Whether waiting does not help.
    fn gives_up_on(&self, why: &Unplaced) -> bool {
        // A version that nobody has will not come back.
        self.version.is_some() && *why == Unplaced::NoneWithVersion
    }
}

// === impl State ===

impl State {
    /// Takes note of an item that was placed.
    fn sent(
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
        self.budget.deposit();
        self.counts.placed(&wanted.ask(), &placed);
        if let Some(key) = wanted.asked.key {
            self.keys.put(key, placed.replica.clone());
        }
        Ok((replica, placed))
    }

    /// Works out anew what follows from who is there and how they are.
    fn refresh(&mut self, now: Duration, settings: &RouterSettings) {
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

// === impl Prices ===

impl Prices {
    fn mean(loads: impl Iterator<Item = Load>) -> Option<Self> {
        let (mut n, mut prefix, mut response_token) = (0_u32, 0.0, 0.0);
        for load in loads.filter(|load| load.response_token_seconds > 0.0) {
            n += 1;
            prefix += load.prefix_seconds;
            response_token += load.response_token_seconds;
        }
        let n = f64::from(n);
        (n > 0.0).then(|| Self { prefix: prefix / n, response_token: response_token / n })
    }
}

// === impl Place ===

impl Place {
    /// The item ended here; `computed`: its prefix is held now.
    pub(crate) fn end(mut self, computed: bool) {
        let took = self.began.elapsed();
        self.give_back(computed, Some(took));
    }

    fn give_back(&mut self, computed: bool, took: Option<Duration>) {
        let Some(placed) = self.placed.take() else { return };
        let now = self.fleet.now();
        let mut state = self.fleet.lock();
        if let Some(took) = took.filter(|_| computed) {
            state.counts.scored(&placed.replica, took);
        }
        state.placement.end(placed.ticket, now, computed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.give_back(false, None);
    }
}
