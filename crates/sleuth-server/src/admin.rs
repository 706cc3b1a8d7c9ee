//! `AdminService`: what operators do to a running server.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::admin_service_server::AdminService;
use sleuth_service::{AdapterInfo, Swap, Swapped};
use sleuth_wire::{Place, status};
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::lifecycle::Lifecycle;
use crate::port::{Doing, Stage};
use crate::server::report;
use crate::unoffered::not_offered;
use crate::{Hooks, Observer};

/// Replaces the log filter and gives the one before; an error says what is wrong with the new one.
pub type ReplaceFilter = Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// Longest list of directives, in bytes.
const MAX_FILTER_BYTES: usize = 4096;
/// Longest time that a call may name.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// `AdminService` over what the process offers.
#[derive(Clone)]
pub(crate) struct Admin {
    replace_filter: Option<ReplaceFilter>,
    swap: Arc<OnceLock<Swap>>,
    drains: Drains,
}

/// What a drain acts on.
#[derive(Clone)]
pub(crate) struct Drains {
    pub(crate) lifecycle: Lifecycle,
    pub(crate) reporter: HealthReporter,
    pub(crate) stage: Stage,
    pub(crate) observer: Observer,
    /// Where a call names none.
    pub(crate) deadline: Duration,
}

// === impl Drains ===

impl Drains {
    /// Refuses new items, waits for the rest, and gives up what is unfinished at the deadline; how
    /// many items those are.
    async fn drain(&self, deadline: Option<Duration>) -> u32 {
        tracing::info!("draining, as an operator asked");
        report(&self.reporter, ServingStatus::NotServing).await;
        self.stage.set(Doing::Draining);
        self.lifecycle.drain();
        let deadline = deadline.unwrap_or(self.deadline);
        if timeout(deadline, self.lifecycle.idle()).await.is_ok() {
            return 0;
        }
        let abandoned = self.observer.items_in_flight();
        tracing::warn!(abandoned, "the drain deadline passed");
        self.lifecycle.stop();
        abandoned
    }
}

// === impl Admin ===

impl Admin {
    pub(crate) fn new(hooks: &Hooks, drains: Drains) -> Self {
        let (replace_filter, swap) = (hooks.replace_filter.clone(), Arc::clone(&hooks.swap));
        Self { replace_filter, swap, drains }
    }

    fn swap(&self, call: &str) -> Result<&Swap, Status> {
        let loading = self.drains.stage.doing() == Doing::Loading;
        self.swap.get().ok_or_else(|| if loading { still_loading() } else { not_offered(call) })
    }

    fn set_filter(&self, filter: &str) -> Result<String, Status> {
        let replace = self.replace_filter.as_ref().ok_or_else(|| not_offered("SetLogFilter"))?;
        let bad = |detail: String| {
            let failure = Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail);
            status(&failure.at("filter"), Place::Request)
        };
        if filter.is_empty() || filter.len() > MAX_FILTER_BYTES {
            return Err(bad(format!("has {} bytes; 1 to {MAX_FILTER_BYTES}", filter.len())));
        }
        let previous = replace(filter).map_err(bad)?;
        tracing::info!(filter, previous, "the log filter is another");
        Ok(previous)
    }
}

#[tonic::async_trait]
impl AdminService for Admin {
    async fn list_adapters(
        &self,
        _: Request<v1::ListAdaptersRequest>,
    ) -> Result<Response<v1::ListAdaptersResponse>, Status> {
        let adapters = self.swap("ListAdapters")?.adapters().into_iter().map(adapter).collect();
        Ok(Response::new(v1::ListAdaptersResponse { adapters }))
    }

    async fn load_adapter(
        &self,
        request: Request<v1::LoadAdapterRequest>,
    ) -> Result<Response<v1::LoadAdapterResponse>, Status> {
        let swap = self.swap("LoadAdapter")?;
        let v1::LoadAdapterRequest { name, path, make_default, expected_version } =
            request.into_inner();
        let loaded = swap
            .load_adapter(&name, &path, &expected_version, make_default)
            .await
            .map_err(|failure| refused(&failure))?;
        Ok(Response::new(v1::LoadAdapterResponse { adapter: Some(adapter(loaded)) }))
    }

    async fn unload_adapter(
        &self,
        request: Request<v1::UnloadAdapterRequest>,
    ) -> Result<Response<v1::UnloadAdapterResponse>, Status> {
        let name = &request.get_ref().name;
        self.swap("UnloadAdapter")?.unload_adapter(name).map_err(|failure| refused(&failure))?;
        Ok(Response::new(v1::UnloadAdapterResponse {}))
    }

    async fn load_weights(
        &self,
        request: Request<v1::LoadWeightsRequest>,
    ) -> Result<Response<v1::LoadWeightsResponse>, Status> {
        let swap = self.swap("LoadWeights")?;
        let v1::LoadWeightsRequest { path, keep_old, expected_version } = request.into_inner();
        let keep = keep_old.map(|time| duration(time, "keep_old")).transpose()?;
        let Swapped { version, previous } = swap
            .load_weights(&path, &expected_version, keep)
            .await
            .map_err(|failure| refused(&failure))?;
        Ok(Response::new(v1::LoadWeightsResponse { version, previous_version: previous }))
    }

    async fn drain(
        &self,
        request: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        let deadline = request.get_ref().deadline;
        let deadline = deadline.map(|time| duration(time, "deadline")).transpose()?;
        let abandoned_items = self.drains.drain(deadline).await;
        Ok(Response::new(v1::DrainResponse { abandoned_items }))
    }

    async fn set_log_filter(
        &self,
        request: Request<v1::SetLogFilterRequest>,
    ) -> Result<Response<v1::SetLogFilterResponse>, Status> {
        let previous_filter = self.set_filter(&request.get_ref().filter)?;
        Ok(Response::new(v1::SetLogFilterResponse { previous_filter }))
    }
}

fn adapter(info: AdapterInfo) -> v1::Adapter {
    let AdapterInfo { name, version, bytes, is_default } = info;
    v1::Adapter { name, version, size_bytes: bytes, is_default }
}

fn duration(time: prost_types::Duration, field: &'static str) -> Result<Duration, Status> {
    let bad = |_| {
        let detail = "is negative";
        refused(&Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail).at(field))
    };
    let time = Duration::try_from(time).map_err(bad)?;
    Ok(time.min(LONGEST))
}

fn still_loading() -> Status {
    let detail = "the model is still loading; try again later";
    refused(&Failure::new(ErrorClass::Overload, Reason::MODEL_LOADING, detail))
}

fn refused(failure: &Failure) -> Status {
    status(failure, Place::Request)
}
