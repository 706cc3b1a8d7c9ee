//! What the contract names and this server does not offer yet: a plain UNIMPLEMENTED.

use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::replica_service_server::ReplicaService;
use sleuth_wire::{Place, status};
use tonic::{Request, Response, Status};

/// `ReplicaService`.
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
