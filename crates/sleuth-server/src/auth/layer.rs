use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::future::Either;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_wire::{Place, status};
use tonic::body::Body;
use tower::{Layer, Service};

use super::access::{Access, access};
use super::{Credentials, Identity};
use crate::listener::Peer;
use crate::reload::Latest;

/// Checks every call's credentials before any service sees it.
#[derive(Clone)]
pub(crate) struct AuthLayer {
    credentials: Option<Latest<Credentials>>,
}

/// A service behind the check. Those who are known go on with an [`Identity`]; tokens stay here.
#[derive(Clone)]
pub(crate) struct Checked<S> {
    inner: S,
    credentials: Option<Latest<Credentials>>,
}

// === impl AuthLayer ===

impl AuthLayer {
    /// Without credentials whoever can connect may call, and administer from this machine alone.
    pub(crate) fn new(credentials: Option<Latest<Credentials>>) -> Self {
        Self { credentials }
    }
}

impl<S> Layer<S> for AuthLayer {
    type Service = Checked<S>;

    fn layer(&self, inner: S) -> Checked<S> {
        Checked { inner, credentials: self.credentials.clone() }
    }
}

// === impl Checked ===

impl<S> Service<Request<Body>> for Checked<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response<Body>, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let known = self.credentials.as_ref().map(Latest::get);
        let access = access(request.uri().path());
        match check(&request, known.as_ref(), access) {
            Ok(identity) => {
                request.headers_mut().remove(AUTHORIZATION);
                if let Some(identity) = identity {
                    request.extensions_mut().insert(identity);
                }
                Either::Left(self.inner.call(request))
            }
            Err(failure) => {
                let refused = status(&failure, Place::Request).into_http();
                Either::Right(ready(Ok(refused)))
            }
        }
    }
}

/// Who calls, where that matters and is known; an error where they may not.
pub(crate) fn check<B>(
    request: &Request<B>,
    credentials: Option<&Arc<Credentials>>,
    access: Access,
) -> Result<Option<Identity>, Failure> {
    let path = request.uri().path();
    if access == Access::Open {
        return Ok(None);
    }
    let peer = request.extensions().get::<Peer>();
    let identity = identify(request, peer, credentials).inspect_err(|failure| {
        let address = peer.map(|peer| peer.address);
        tracing::warn!(?address, path, reason = failure.reason.name(), "a call is refused");
    })?;
    let permitted = match (&identity, access) {
        (_, Access::Open | Access::Known) => true,
        (Some(identity), Access::Any(roles)) => identity.has_any(roles),
        // Nobody is known here: then it counts from where they come.
        (None, Access::Any(roles)) => {
            !roles.contains(&super::Role::Admin)
                || peer.is_none_or(|peer| peer.address.ip().is_loopback())
        }
    };
    if permitted {
        return Ok(identity);
    }
    let name = identity.as_ref().map(|identity| &*identity.name);
    tracing::warn!(name, path, "a call is denied");
    let detail = match name {
        Some(_) => "these credentials do not have the role that the call takes",
        None => "without credentials this call is answered on loopback only",
    };
    Err(Failure::new(ErrorClass::Denied, Reason::ROLE_MISSING, detail))
}

fn identify<B>(
    request: &Request<B>,
    peer: Option<&Peer>,
    credentials: Option<&Arc<Credentials>>,
) -> Result<Option<Identity>, Failure> {
    let names = peer.and_then(|peer| peer.names.as_deref());
    let Some(credentials) = credentials else {
        return Ok(names.map(Identity::of_certificate));
    };
    let mut headers = request.headers().get_all(AUTHORIZATION).iter();
    let unauthenticated =
        |reason, detail| Failure::new(ErrorClass::Unauthenticated, reason, detail);
    let (header, another) = (headers.next(), headers.next());
    if another.is_some() {
        let detail = "there is more than one authorization header";
        return Err(unauthenticated(Reason::TOKEN_UNKNOWN, detail));
    }
    let found = match header {
        Some(header) => credentials.by_token(header.as_bytes()),
        None => names.and_then(|names| credentials.by_names(names)),
    };
    found.cloned().map(Some).ok_or_else(|| {
        if header.is_some() {
            let detail = "the authorization header holds no bearer token that is known here";
            unauthenticated(Reason::TOKEN_UNKNOWN, detail)
        } else {
            let detail = "send `authorization: Bearer` and a token";
            unauthenticated(Reason::TOKEN_MISSING, detail)
        }
    })
}
