//! How the router learns of its replicas.
//!
//! A [`Source`] says where they are found: a fixed list, the DNS name of a headless Service, or a
//! Service's EndpointSlices in Kubernetes. [`Source::watch`] starts a task that keeps a
//! [`Membership`] up to date; a look that fails never empties it at once. Only monotonic time is
//! used, so that a clock that is set changes nothing.
//!
//! In Kubernetes the router's service account needs a Role in the Service's namespace with the
//! verbs `list` and `watch` on `endpointslices` of the API group `discovery.k8s.io`. (`get` is
//! usually granted along with them; nothing here uses it.) DNS needs no permission.

mod dns;
mod fixed;
mod jitter;
mod kubernetes;
mod members;
mod text;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub use text::SourceError;

use members::Members;

/// The most endpoints that a membership holds. Of more, those whose names sort first are kept, so
/// that every router keeps the same ones.
pub const MAX_ENDPOINTS: usize = 1024;

/// Where replicas are found. [`str::parse`] reads it as it is written on a command line:
/// `http://a:50051,http://b:50051`, `dns://name.namespace.svc:50051` or
/// `kubernetes://namespace/service:port`; `dns+https` and `kubernetes+https` for replicas that
/// speak TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A list that does not change.
    Fixed(Vec<Endpoint>),
    /// The addresses of a DNS name.
    Dns(DnsSettings),
    /// The EndpointSlices of a Service.
    Kubernetes(KubernetesSettings),
}

/// A DNS name whose addresses are the replicas: that of a headless Service.
///
/// The A records are the replicas; AAAA is asked for only where there is no A, since a replica
/// with an address of either kind would otherwise be counted twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsSettings {
    /// The name. Without a dot at its end, the system's search list applies to it.
    pub host: String,
    /// The replicas' port, 1 to 65,535.
    pub port: u16,
    /// How the replicas are spoken to.
    pub scheme: Scheme,
    /// Shortest time between two looks, and the first after one that failed. Under 1 s it is 1 s.
    pub min_interval: Duration,
    /// Longest time between two looks; between the bounds the records' TTL decides. Over 30 s it
    /// is 30 s.
    pub max_interval: Duration,
    /// Name servers to ask; with none, the system's.
    pub servers: Vec<SocketAddr>,
}

/// A Service whose EndpointSlices are the replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesSettings {
    /// The Service's namespace.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The pods' port.
    pub port: ServicePort,
    /// How the replicas are spoken to.
    pub scheme: Scheme,
    /// How the API server is reached. `None`: as a pod of the cluster, or, where there is no
    /// service account, as `KUBECONFIG` or the user's own file say.
    pub kubeconfig: Option<PathBuf>,
}

/// A port of a Service's pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServicePort {
    /// The port that has this name in the Service.
    Name(String),
    /// The pods' own port, 1 to 65,535: a Service's `targetPort`, not its `port`.
    Number(u16),
}

/// How replicas are spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    #[default]
    Http,
    /// Over TLS.
    Https,
}

/// One replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The same in every router: the pod's name where Kubernetes tells it, else `host:port`.
    pub name: Arc<str>,
    /// `http://host:port` or `https://host:port`; an IPv6 address stands in brackets.
    pub url: String,
    /// The zone that it runs in, where Kubernetes tells it.
    pub zone: Option<Arc<str>>,
    /// Whether it takes new work.
    pub state: EndpointState,
}

/// Whether a replica takes new work. Those that are not ready yet are not listed at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// It does.
    Ready,
    /// It finishes what it has and then stops. Only Kubernetes tells.
    Terminating,
}

/// The replicas as they are known now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// Sorted by name, each name once, at most [`MAX_ENDPOINTS`].
    pub endpoints: Vec<Endpoint>,
    /// Whether a look has ever succeeded; before that, no endpoints means that none are known.
    pub known: bool,
    /// Why the last look failed; the endpoints are the last known ones then.
    pub fault: Option<String>,
}

/// How patient discovery is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// How long the last known endpoints stay while DNS answers with an error, with nothing, or
    /// not at all, from the first such look; [`Duration::MAX`] for ever. Kubernetes' stay for ever:
    /// there an empty Service is told apart from an API server that is away.
    pub grace: Duration,
    /// Successive good DNS answers that an endpoint must be missing from before it leaves; some
    /// servers answer with a changing part of the addresses. 0 is as 1.
    pub misses: u32,
    /// How long changes that Kubernetes reports are gathered before they are published.
    pub coalesce: Duration,
}

/// A running discovery; it stops when this is dropped.
#[derive(Debug)]
pub struct Discovery {
    membership: watch::Receiver<Membership>,
    /// `None` for a fixed list, which needs no task.
    _task: Option<AbortOnDropHandle<()>>,
}

// === impl Source ===

impl Source {
    /// Starts to look. Never fails: what goes wrong is told in [`Membership::fault`] and tried
    /// again, for a file or a permission may come later.
    ///
    /// # Panics
    /// Outside a Tokio runtime with time and IO.
    pub fn watch(self, settings: DiscoverySettings) -> Discovery {
        let (members, membership) = Members::new();
        let task = match self {
            Self::Fixed(endpoints) => {
                members.found(endpoints, None);
                None
            }
            Self::Dns(dns) => Some(tokio::spawn(dns::follow(dns, settings, members))),
            Self::Kubernetes(service) => {
                Some(tokio::spawn(kubernetes::follow(service, settings, members)))
            }
        };
        Discovery { membership, _task: task.map(AbortOnDropHandle::new) }
    }
}

// === impl DnsSettings ===

impl DnsSettings {
    /// A name and a port, looked at every 1 to 30 s by the system's name servers.
    pub fn new(host: impl Into<String>, port: u16, scheme: Scheme) -> Self {
        Self {
            host: host.into(),
            port,
            scheme,
            min_interval: Duration::from_secs(1),
            max_interval: Duration::from_secs(30),
            servers: Vec::new(),
        }
    }
}

// === impl Scheme ===

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "http",
            Self::Https => "https",
        })
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// A ready replica that is known by its address alone.
    fn at(scheme: Scheme, address: SocketAddr) -> Self {
        let name = address.to_string();
        let url = format!("{scheme}://{name}");
        Self { name: name.into(), url, zone: None, state: EndpointState::Ready }
    }
}

// === impl DiscoverySettings ===

impl Default for DiscoverySettings {
    /// A grace of 30 s, two misses, 100 ms.
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), misses: 2, coalesce: Duration::from_millis(100) }
    }
}

// === impl Discovery ===

impl Discovery {
    /// The membership, and a way to wait for another.
    pub fn membership(&self) -> watch::Receiver<Membership> {
        self.membership.clone()
    }

    /// Waits for the first look, good or bad.
    pub async fn looked(&self) -> Membership {
        let mut membership = self.membership.clone();
        let looked = membership.wait_for(|seen| seen.known || seen.fault.is_some()).await;
        looked.map(|seen| seen.clone()).unwrap_or_default()
    }
}
