//! What the contract names and this server does not offer yet: a plain UNIMPLEMENTED.

use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::admin_service_server::AdminService;
use sleuth_proto::v1::replica_service_server::ReplicaService;
use sleuth_wire::{Place, status};
use tonic::{Request, Response, Status};

/// `ReplicaService` and `AdminService`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unoffered;

/// The answer to a call that is not offered.
pub(crate) fn not_offered(call: &str) -> Status {
    let detail = format!("this server does not offer {call}");
    status(&Failure::new(ErrorClass::Unsupported, Reason::NOT_OFFERED, detail), Place::Request)
}

// === impl Unoffered ===

#[tonic::async_trait]
impl ReplicaService for Unoffered {
    type WatchLoadStream = futures::stream::Empty<Result<v1::WatchLoadResponse, Status>>;

    async fn watch_load(
        &self,
        _: Request<v1::WatchLoadRequest>,
    ) -> Result<Response<Self::WatchLoadStream>, Status> {
        Err(not_offered("WatchLoad"))
    }
}

#[tonic::async_trait]
impl AdminService for Unoffered {
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
        _: Request<v1::SetLogFilterRequest>,
    ) -> Result<Response<v1::SetLogFilterResponse>, Status> {
        Err(not_offered("SetLogFilter"))
    }
}
