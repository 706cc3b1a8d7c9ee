//! One replica: its connection, what it said of itself, and the images that it has.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use lru::LruCache;
use sleuth_client::{Client, ClientError};
use sleuth_core::{Load, ModelCard};
use sleuth_service::Caller;
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, watch};

use crate::placement::ReplicaId;

/// A replica as the router sees it. It outlives its connections.
pub(crate) struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) url: String,
    state: Mutex<State>,
    /// Why it was not reached when that was last tried.
    unreached: Mutex<Option<String>>,
    /// Counts connections; 0 while there is none. Who waits for an item here sees it change.
    connection: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// The connection's number.
    number: u64,
    client: Option<Client>,
    card: Option<Arc<ModelCard>>,
    load: Load,
    /// Cards of adapters, as long as the versions that answer stay the same.
    adapters: HashMap<String, Arc<ModelCard>>,
    tenants: Option<LruCache<Arc<str>, Vec<Lane>>>,
    images: Option<LruCache<ImageKey, ()>>,
    sending: HashMap<ImageKey, Arc<AsyncMutex<()>>>,
}

/// A connection to a replica, on behalf of a tenant.
pub(crate) struct Connection {
    pub(crate) client: Client,
    number: u64,
    changed: watch::Receiver<u64>,
    /// The item's place in its stream; `None` where all streams are full.
    _room: Option<OwnedSemaphorePermit>,
}

/// A stream of a tenant's items. A replica stops to read a stream that has many unfinished ones,
/// so there are as many streams as it takes for none to be full.
struct Lane {
    client: Client,
    room: Arc<Semaphore>,
}

/// An image on its way to a replica, also if its sender gives up.
struct Sending<'a> {
    replica: &'a Replica,
    key: &'a ImageKey,
}

/// Images are a tenant's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ImageKey {
    tenant: Arc<str>,
    digest: [u8; 32],
}

/// Items without a verdict on one stream: what replicas allow by default.
const LANE_ITEMS: usize = 512;
/// Streams of one tenant to one replica.
const MOST_LANES: usize = 64;
/// Tenants whose streams to one replica are kept open.
const MOST_TENANTS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");
/// Images that a replica is remembered to have: a hint, which it may have let go.
const MOST_IMAGES: NonZeroUsize = NonZeroUsize::new(16_384).expect("not zero");
/// Adapters whose cards are kept.
const MOST_ADAPTERS: usize = 256;

// === impl Replica ===

impl Replica {
    pub(crate) fn new(id: ReplicaId, url: String) -> Self {
        let (state, unreached) = (Mutex::default(), Mutex::default());
        Self { id, url, state, unreached, connection: watch::Sender::new(0) }
    }

    /// A new connection works.
    pub(crate) fn connected(&self, client: Client, card: Arc<ModelCard>) {
        let mut state = self.lock();
        let number = state.number + 1;
        *state = State {
            number,
            client: Some(client),
            card: Some(card),
            tenants: Some(LruCache::new(MOST_TENANTS)),
            images: Some(LruCache::new(MOST_IMAGES)),
            ..State::default()
        };
        drop(state);
        self.connection.send_replace(number);
    }

    /// It reports: whatever kept it from being reached is over.
    pub(crate) fn is_reached(&self) {
        *self.unreached.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// It was not reached, or reported no more; says whether that is news.
    pub(crate) fn is_unreached(&self, why: &str) -> bool {
        let mut known = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        let news = known.as_deref() != Some(why);
        *known = Some(why.to_owned());
        news
    }

    /// Why it is not reached.
    pub(crate) fn unreached(&self) -> Option<String> {
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The connection is of no use any more: whoever waits on it goes elsewhere.
    pub(crate) fn disconnected(&self) {
        let mut state = self.lock();
        *state = State { number: state.number, ..State::default() };
        drop(state);
        self.connection.send_replace(0);
    }

    /// Takes note of a report; whether other versions answer now.
    pub(crate) fn reported(&self, load: Load) -> bool {
        let mut state = self.lock();
        let changed = state.load.versions != load.versions;
        if changed {
            state.adapters.clear();
        }
        state.load = load;
        changed
    }

    pub(crate) fn describes(&self, card: Arc<ModelCard>) {
        self.lock().card = Some(card);
    }

    /// What scores items that ask for no adapter.
    pub(crate) fn card(&self) -> Option<Arc<ModelCard>> {
        self.lock().card.clone()
    }

    pub(crate) fn load(&self) -> Load {
        self.lock().load.clone()
    }

    /// The way there for a tenant's items; `None` while there is none.
    pub(crate) fn connection(&self, caller: &Caller) -> Option<Result<Connection, ClientError>> {
        let mut state = self.lock();
        let (number, changed) = (state.number, self.connection.subscribe());
        let client = state.client.clone()?;
        let tenants = state.tenants.as_mut()?;
        let lanes = tenants.get_or_insert_mut(Arc::clone(&caller.tenant), Vec::new);
        let mut found = lanes.iter().find_map(Lane::enter);
        if found.is_none() && lanes.len() < MOST_LANES {
            match client.for_tenant(&caller.tenant) {
                Ok(client) => {
                    lanes.push(Lane { client, room: Arc::new(Semaphore::new(LANE_ITEMS)) });
                }
                Err(error) => return Some(Err(error)),
            }
            found = lanes.last().and_then(Lane::enter);
        }
        // Where all are full, the item waits in the last one.
        let (client, room) = found.or_else(|| Some((lanes.last()?.client.clone(), None)))?;
        Some(Ok(Connection { client, number, changed, _room: room }))
    }

    /// What scores items that ask for this adapter, as the replica says. Asked once for as long as
    /// the same versions answer.
    pub(crate) async fn card_of(&self, adapter: &str) -> Result<Arc<ModelCard>, ClientError> {
        let (client, number) = {
            let state = self.lock();
            let known = if adapter.is_empty() { &state.card } else { &None };
            if let Some(card) = known.as_ref().or_else(|| state.adapters.get(adapter)) {
                return Ok(Arc::clone(card));
            }
            (state.client.clone(), state.number)
        };
        let client = client.ok_or(ClientError::StreamEnded(None))?;
        let card = Arc::new(client.model_of(adapter).await?);
        let mut state = self.lock();
        if state.number == number && state.adapters.len() < MOST_ADAPTERS {
            state.adapters.insert(adapter.to_owned(), Arc::clone(&card));
        }
        Ok(card)
    }

    /// Sees to it that the replica has an image, unless it probably has it; whether it was sent.
    /// Those who need the same image wait for the one who sends it.
    pub(crate) async fn give_image(
        &self,
        connection: &Connection,
        caller: &Caller,
        digest: [u8; 32],
        data: &Bytes,
    ) -> Result<bool, ClientError> {
        let key = ImageKey { tenant: Arc::clone(&caller.tenant), digest };
        let Some(turn) = self.turn(&key) else { return Ok(false) };
        let _turn = turn.lock().await;
        if self.has_image(&key) {
            return Ok(false);
        }
        let sending = Sending { replica: self, key: &key };
        connection.client.put_image(data.clone()).await?;
        if let Some(images) = &mut self.lock().images {
            images.put(key.clone(), ());
        }
        drop(sending);
        Ok(true)
    }

    /// The replica has let an image go.
    pub(crate) fn lacks_image(&self, caller: &Caller, digest: [u8; 32]) {
        let key = ImageKey { tenant: Arc::clone(&caller.tenant), digest };
        if let Some(images) = &mut self.lock().images {
            images.pop(&key);
        }
    }

    fn has_image(&self, key: &ImageKey) -> bool {
        self.lock().images.as_mut().is_some_and(|images| images.get(key).is_some())
    }

    /// A turn at sending an image; `None` where the replica has it.
    fn turn(&self, key: &ImageKey) -> Option<Arc<AsyncMutex<()>>> {
        let mut state = self.lock();
        if state.images.as_mut().is_some_and(|images| images.get(key).is_some()) {
            return None;
        }
        Some(Arc::clone(state.sending.entry(key.clone()).or_default()))
    }

    /// Nothing panics while the lock is held.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Sending ===

impl Drop for Sending<'_> {
    fn drop(&mut self) {
        self.replica.lock().sending.remove(self.key);
    }
}

// === impl Lane ===

impl Lane {
    /// A place in it; `None` while it is full.
    fn enter(&self) -> Option<(Client, Option<OwnedSemaphorePermit>)> {
        let room = Arc::clone(&self.room).try_acquire_owned().ok()?;
        Some((self.client.clone(), Some(room)))
    }
}

// === impl Connection ===

impl Connection {
    /// Resolves when the connection is of no use any more.
    pub(crate) async fn lost(&self) {
        let mut changed = self.changed.clone();
        // The replica's handle outlives its connections; where it is gone, so are they.
        let _ = changed.wait_for(|number| *number != self.number).await;
    }
}
