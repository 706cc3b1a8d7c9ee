//! `AdminService`: what operators do to a running server.

use std::sync::Arc;

use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::admin_service_server::AdminService;
use sleuth_wire::{Place, status};
use tonic::{Request, Response, Status};

use crate::unoffered::not_offered;

/// Replaces the log filter and gives the one before; an error says what is wrong with the new one.
pub type ReplaceFilter = Arc<dyn Fn(&str) -> Result<String, String> + Send + Sync>;

/// Longest list of directives, in bytes.
const MAX_FILTER_BYTES: usize = 4096;

/// `AdminService` over what the process offers.
#[derive(Clone)]
pub(crate) struct Admin {
    replace_filter: Option<ReplaceFilter>,
}

// === impl Admin ===

impl Admin {
    pub(crate) fn new(replace_filter: Option<ReplaceFilter>) -> Self {
        Self { replace_filter }
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
        Err(not_offered("ListAdapters"))
    }

    async fn load_adapter(
        &self,
        _: Request<v1::LoadAdapterRequest>,
    ) -> Result<Response<v1::LoadAdapterResponse>, Status> {
        Err(not_offered("LoadAdapter"))
    }

    async fn unload_adapter(
        &self,
        _: Request<v1::UnloadAdapterRequest>,
    ) -> Result<Response<v1::UnloadAdapterResponse>, Status> {
        Err(not_offered("UnloadAdapter"))
    }

    async fn load_weights(
        &self,
        _: Request<v1::LoadWeightsRequest>,
    ) -> Result<Response<v1::LoadWeightsResponse>, Status> {
        Err(not_offered("LoadWeights"))
    }

    async fn drain(
        &self,
        _: Request<v1::DrainRequest>,
    ) -> Result<Response<v1::DrainResponse>, Status> {
        Err(not_offered("Drain"))
    }

    async fn set_log_filter(
        &self,
        request: Request<v1::SetLogFilterRequest>,
    ) -> Result<Response<v1::SetLogFilterResponse>, Status> {
        let previous_filter = self.set_filter(&request.get_ref().filter)?;
        Ok(Response::new(v1::SetLogFilterResponse { previous_filter }))
    }
}
