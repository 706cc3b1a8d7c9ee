//! `ReplicaService`: the load of this server, for routers.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use sleuth_core::{ErrorClass, Failure, LoadReport, PrefixChanges, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::replica_service_server::ReplicaService;
use sleuth_service::{Scorer, Told};
use sleuth_wire::{Place, duration, load_response, status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

use crate::port::{Doing, Stage};
use crate::unoffered::not_offered;

/// `ReplicaService` over a scorer.
#[derive(Clone)]
pub(crate) struct Replica {
    scorer: Arc<dyn Scorer>,
    stage: Stage,
    places: Arc<Semaphore>,
}

/// One watcher's view.
struct Watch {
    scorer: Arc<dyn Scorer>,
    stage: Stage,
    intervals: Intervals,
    told: Told,
    /// The last report, without prefixes, and when it was sent.
    last: Option<(LoadReport, Instant)>,
    /// Looking through prefixes takes time: the next look, at the earliest.
    next_look: Instant,
    _place: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, Debug)]
struct Intervals {
    least: Duration,
    most: Duration,
}

/// Watchers at once: a few routers, and a few terminals.
const MAX_WATCHERS: usize = 64;
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(10);
/// Looking through prefixes takes at most one part in so many of a watcher's time.
const LOOK_SHARE: u32 = 50;
/// A change of the queue below this is none.
const LEAST_CHANGE: Duration = Duration::from_millis(1);

// === impl Replica ===

impl Replica {
    pub(crate) fn new(scorer: Arc<dyn Scorer>, stage: Stage) -> Self {
        Self { scorer, stage, places: Arc::new(Semaphore::new(MAX_WATCHERS)) }
    }

    fn watch(&self, request: v1::WatchLoadRequest) -> Result<Watch, Failure> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let detail = format!("{MAX_WATCHERS} watch already");
            Failure::new(ErrorClass::Overload, Reason::QUEUE_FULL, detail)
                .retry_after(Duration::from_secs(1))
        })?;
        Ok(Watch {
            scorer: Arc::clone(&self.scorer),
            stage: self.stage.clone(),
            intervals: Intervals::of(&request)?,
            told: Told::default(),
            last: None,
            next_look: Instant::now(),
            _place: place,
        })
    }
}

#[tonic::async_trait]
impl ReplicaService for Replica {
    type WatchLoadStream = BoxStream<'static, Result<v1::WatchLoadResponse, Status>>;

    async fn watch_load(
        &self,
        request: Request<v1::WatchLoadRequest>,
    ) -> Result<Response<Self::WatchLoadStream>, Status> {
        if self.scorer.load().is_none() {
            return Err(not_offered("WatchLoad"));
        }
        let watch = self.watch(request.into_inner()).map_err(|f| status(&f, Place::Request))?;
        let reports = futures::stream::unfold(watch, |mut watch| async move {
            let report = watch.next().await?;
            Some((Ok(load_response(report)), watch))
        });
        Ok(Response::new(reports.boxed()))
    }
}

// === impl Watch ===

impl Watch {
    /// Waits until there is something to tell. `None` once the load is told no more.
    async fn next(&mut self) -> Option<LoadReport> {
        loop {
            if self.last.is_some() {
                sleep(self.intervals.least).await;
            }
            let load = self.scorer.load()?;
            let draining = self.stage.doing() == Doing::Draining;
            let sequence = self.last.as_ref().map_or(0, |(last, _)| last.sequence + 1);
            let report = LoadReport { sequence, load, draining, ..LoadReport::default() };
            let due = self.last.as_ref().is_none_or(|(last, at)| {
                at.elapsed() >= self.intervals.most || is_news(last, &report)
            });
            let prefixes = self.look();
            if due || prefixes != PrefixChanges::default() {
                self.last = Some((report.clone(), Instant::now()));
                return Some(LoadReport { prefixes, ..report });
            }
        }
    }

    fn look(&mut self) -> PrefixChanges {
        let start = Instant::now();
        if start < self.next_look {
            return PrefixChanges::default();
        }
        let changes = self.scorer.prefix_changes(&mut self.told);
        self.next_look = Instant::now() + start.elapsed() * LOOK_SHARE;
        changes
    }
}

/// Whether a report differs enough from the last one.
fn is_news(last: &LoadReport, now: &LoadReport) -> bool {
    let (before, after) = (&last.load, &now.load);
    let queue = before.queue.abs_diff(after.queue);
    let items = before.unfinished_items.abs_diff(after.unfinished_items);
    (queue > LEAST_CHANGE && queue.saturating_mul(10) > before.queue.max(after.queue))
        || items * 10 > before.unfinished_items.max(after.unfinished_items)
        || last.draining != now.draining
        || before.versions != after.versions
}

// === impl Intervals ===

impl Intervals {
    fn of(request: &v1::WatchLoadRequest) -> Result<Self, Failure> {
        let parse = |wire: Option<prost_types::Duration>, field: &'static str| {
            let Some(wire) = wire else { return Ok(None) };
            let within = |d: &Duration| (SHORTEST..=LONGEST).contains(d);
            duration(&wire).filter(within).map(Some).ok_or_else(|| {
                let detail = "must be 10 ms to 10 s";
                Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail).at(field)
            })
        };
        let least = parse(request.min_interval, "min_interval")?;
        let least = least.unwrap_or(Duration::from_millis(50));
        let most = parse(request.max_interval, "max_interval")?.unwrap_or(Duration::from_secs(1));
        Ok(Self { least, most: most.max(least) })
    }
}
