use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use sleuth_client::ClientError;
use sleuth_core::{Context, ErrorClass, Failure, ModelCard, Reason, ScoreRequest, Scored};
use sleuth_service::{BoxFuture, Caller, Corrects, ImageStore, OpenItem, Scorer, Tokenized};
use sleuth_wire::Place as Field;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::asked::Asked;
use crate::correct::RoutedCorrections;
use crate::dial::{Dial, Network};
use crate::discovery::Membership;
use crate::fleet::Fleet;
use crate::open::Opening;
use crate::{FleetView, RouterSettings, failures, whole};

/// Scores items at replicas. Clones are handles to the same router; it stops following replicas
/// when the last one is dropped.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
}

struct Shared {
    fleet: Fleet,
    images: Arc<ImageStore>,
    corrections: Arc<dyn Corrects>,
    /// Of idempotency keys: random by router, counted within it.
    random: RandomState,
    keys: AtomicU64,
    /// Ends with the router.
    _tasks: JoinSet<()>,
}

// === impl Router ===

impl Router {
    /// Follows replicas as discovery finds them. To be called within a tokio runtime.
    pub fn start(settings: RouterSettings, members: watch::Receiver<Membership>) -> Self {
        let (client, security) = (settings.client(), settings.security.clone());
        Self::start_with(settings, members, Arc::new(Network { settings: client, security }))
    }

    /// As [`Router::start`], over another network.
    pub fn start_with(
        settings: RouterSettings,
        members: watch::Receiver<Membership>,
        dial: Arc<dyn Dial>,
    ) -> Self {
        let images = ImageStore::new(settings.image_store_bytes, settings.max_image_bytes);
        let images = Arc::new(images);
        let max_timeout = settings.max_timeout;
        let fleet = Fleet::new(settings, dial);
        let mut tasks = JoinSet::new();
        tasks.spawn(join(fleet.clone(), members));
        let kept = fleet.clone();
        tasks.spawn(async move { kept.keep().await });
        let placing = fleet.clone();
        tasks.spawn(async move { placing.place_all().await });
        let corrections =
            RoutedCorrections { fleet: fleet.clone(), images: Arc::clone(&images), max_timeout };
        let shared = Shared {
            fleet,
            images,
            corrections: Arc::new(corrections),
            random: RandomState::new(),
            keys: AtomicU64::new(0),
            _tasks: tasks,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Resolves once a replica answers.
    pub async fn ready(&self) {
        self.shared.fleet.ready().await;
    }

    /// What the router did and sees.
    pub fn view(&self) -> FleetView {
        self.shared.fleet.view()
    }

    /// The images that callers put.
    pub fn image_store(&self) -> &Arc<ImageStore> {
        &self.shared.images
    }

    async fn asked(
        &self,
        caller: &Caller,
        context: &mut Context<Bytes>,
        response: Option<usize>,
    ) -> Result<Arc<Asked>, Failure> {
        let Shared { fleet, images, .. } = &*self.shared;
        let asked = Asked::of(fleet, images, caller, context, response).await?;
        self.name(context);
        Ok(Arc::new(asked))
    }

    /// Gives an item an idempotency key of its own, if it has none: a replica that got it twice,
    /// as a connection broke, computes it once.
    fn name(&self, context: &mut Context<Bytes>) {
        if context.idempotency_key.is_none() {
            let n = self.shared.keys.fetch_add(1, Ordering::Relaxed);
            let [a, b] = ["a", "b"].map(|part| self.shared.random.hash_one((part, n)));
            context.idempotency_key = Some(format!("router-{a:016x}{b:016x}{n:x}"));
        }
    }

    async fn score_item(
        &self,
        caller: &Caller,
        mut request: ScoreRequest<Bytes>,
    ) -> Result<Scored, Failure> {
        let length = request.response.len();
        let asked = self.asked(caller, &mut request.context, Some(length)).await?;
        whole::score(&self.shared.fleet, caller, &asked, request).await
    }

    async fn open_item(
        &self,
        caller: &Caller,
        mut context: Context<Bytes>,
    ) -> Result<OpenItem, Failure> {
        let asked = self.asked(caller, &mut context, None).await?;
        let (fleet, caller) = (self.shared.fleet.clone(), caller.clone());
        Ok(OpenItem::new(Opening { fleet, caller, asked, context }.start()))
    }

    async fn tokenize_text(&self, text: String) -> Result<Tokenized, Failure> {
        let replica = self.shared.fleet.any().ok_or_else(none)?;
        let connection = replica.connection(&Caller::default()).ok_or_else(none)?;
        let client = connection.map_err(pass_on)?.client;
        let encoded = client.tokenize(text).await.map_err(pass_on)?;
        let version = replica.card().map(|card| card.version.clone()).unwrap_or_default();
        Ok(Tokenized { encoded, version })
    }
}

impl Scorer for Router {
    fn score<'a>(
        &'a self,
        caller: &'a Caller,
        request: ScoreRequest<Bytes>,
    ) -> BoxFuture<'a, Result<Scored, Failure>> {
        Box::pin(self.score_item(caller, request))
    }

    fn open<'a>(
        &'a self,
        caller: &'a Caller,
        context: Context<Bytes>,
    ) -> BoxFuture<'a, Result<OpenItem, Failure>> {
        Box::pin(self.open_item(caller, context))
    }

    fn images(&self) -> &Arc<ImageStore> {
        &self.shared.images
    }

    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Tokenized, Failure>> {
        Box::pin(self.tokenize_text(text))
    }

    fn model_of<'a>(&'a self, adapter: &'a str) -> BoxFuture<'a, Result<Arc<ModelCard>, Failure>> {
        Box::pin(async move {
            if let (Some(card), true) = (self.shared.fleet.card().0, adapter.is_empty()) {
                return Ok(card);
            }
            let replica = self.shared.fleet.any().ok_or_else(none)?;
            replica.card_of(adapter).await.map_err(pass_on)
        })
    }

    fn corrects(&self) -> Option<Arc<dyn Corrects>> {
        Some(Arc::clone(&self.shared.corrections))
    }
}

impl Drop for Shared {
    /// Those who follow replicas hold the fleet, and would go on without the router.
    fn drop(&mut self) {
        self.fleet.set_members(&[]);
    }
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").finish_non_exhaustive()
    }
}

/// Takes over members as discovery finds them.
async fn join(fleet: Fleet, mut members: watch::Receiver<Membership>) {
    loop {
        let endpoints = members.borrow_and_update().endpoints.clone();
        fleet.set_members(&endpoints);
        if members.changed().await.is_err() {
            // Discovery has ended: who is there stays.
            return;
        }
    }
}

fn none() -> Failure {
    Failure::new(ErrorClass::Overload, Reason::NO_REPLICA, "no replica answers now")
        .retry_after(std::time::Duration::from_secs(1))
}

fn pass_on(error: ClientError) -> Failure {
    failures::of_replica(error, Field::Request)
}
