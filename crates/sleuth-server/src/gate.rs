//! What is served before the model has loaded, and what from then on.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::Either;
use http::{Request, Response};
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_wire::{Place, status};
use tonic::body::Body;
use tonic::service::Routes;
use tower::Service;

use crate::arriving::Room;

/// Services that are there from the start, and those that come with the model. A call of the
/// latter that comes too early is refused as retryable.
#[derive(Clone)]
pub(crate) struct Gate {
    early: Routes,
    loaded: Arc<OnceLock<Routes>>,
    room: Room,
}

/// Opens a gate, once.
#[derive(Clone)]
pub(crate) struct Key(Arc<OnceLock<Routes>>);

/// Services of which something is served while the model loads.
const EARLY: [&str; 3] = [
    "/grpc.health.v1.Health/",
    "/grpc.reflection.v1.ServerReflection/",
    "/sleuth.v1.AdminService/",
];
/// When to try again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl Gate ===

impl Gate {
    pub(crate) fn new(early: Routes, room: Room) -> (Self, Key) {
        let loaded = Arc::default();
        (Self { early, loaded: Arc::clone(&loaded), room }, Key(loaded))
    }
}

// === impl Key ===

impl Key {
    /// From now on everything is served.
    pub(crate) fn open(&self, all: Routes) {
        // A gate opens once; a second key would open the same.
        let _ = self.0.set(all);
    }
}

impl Service<Request<Body>> for Gate {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<
        <Routes as Service<Request<Body>>>::Future,
        Ready<Result<Response<Body>, Infallible>>,
    >;

    /// Routes are always ready.
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if let Some(loaded) = self.loaded.get() {
            let bounded = request.map(|body| self.room.bound(body));
            return Either::Left(loaded.clone().call(bounded));
        }
        if EARLY.iter().any(|service| request.uri().path().starts_with(service)) {
            return Either::Left(self.early.call(request));
        }
        Either::Right(ready(Ok(status(&loading(), Place::Request).into_http())))
    }
}

pub(crate) fn loading() -> Failure {
    let detail = "the model is still loading";
    Failure::new(ErrorClass::Overload, Reason::MODEL_LOADING, detail).retry_after(RETRY_AFTER)
}
