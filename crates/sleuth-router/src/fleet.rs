//! The replicas together: who is there, how they are, and where items go.

mod gather;
mod place;
mod prices;
mod state;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sleuth_core::{LoadReport, ModelCard};
use sleuth_service::Caller;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use self::gather::Waiting;
pub(crate) use self::gather::Wanted;
pub(crate) use self::place::Place;
pub(crate) use self::prices::Prices;
use self::state::{Member, State};
use crate::asked::KeyDigest;
use crate::discovery::{Endpoint, EndpointState};
use crate::follow::follow;
use crate::health::{Health, Outcome};
use crate::judge::Cause;
use crate::placement::{GroupKey, ReplicaId, Report};
use crate::replica::Replica;
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

/// Replicas that are tried to be reached at a time.
const MOST_REACHED: usize = 64;

// === impl Fleet ===

impl Fleet {
    pub(crate) fn new(settings: RouterSettings, dial: Arc<dyn Dial>) -> Self {
        let state = State::new(&settings);
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

    /// Where an item of this key went before.
    pub(crate) fn before(&self, key: &KeyDigest) -> Option<ReplicaId> {
        self.lock().keys.get(key).cloned()
    }

    /// Whether some other replica has far less to do than one that refuses for lack of room.
    pub(crate) fn has_room_beside(&self, full: &ReplicaId) -> bool {
        let state = self.lock();
        let queue = |member: &Member| member.replica.load().queue;
        let Some(of_full) = state.members.get(full).map(queue) else { return true };
        let takes = |member: &Member| member.is_connected && member.unfit.is_none();
        let mut others = state.members.iter().filter(|(id, member)| *id != full && takes(member));
        others.any(|(_, member)| queue(member) * 2 < of_full)
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

    /// Takes note of the version of a group's verdict; false where the group has another one.
    pub(crate) fn fix_version(&self, group: &GroupKey, version: &str) -> bool {
        let now = self.now();
        let mut state = self.lock();
        let is_same = state.placement.fix_version(group, version, now);
        if is_same {
            state.verdicts.put(group.clone(), ());
        }
        is_same
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
                unreached: member.replica.unreached(),
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

/// How often it is seen what time alone has changed.
const LOOK: Duration = Duration::from_millis(100);

/// Nothing panics while one of these is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
