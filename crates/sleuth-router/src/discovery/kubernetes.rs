//! Replicas by the EndpointSlices of a Service.

mod slices;
#[cfg(test)]
mod stub;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt as _};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Config};
use tokio::time::{Instant, sleep, sleep_until};

use super::jitter::Jitter;
use super::members::Members;
use super::{DiscoverySettings, KubernetesSettings};
use slices::Slices;

/// The longest fault that is told, in characters; an API server may answer with anything.
const MAX_FAULT: usize = 400;

/// How long connecting to the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How patient the API server is dealt with.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// Pause after a failure, doubled for each one after.
    first_pause: Duration,
    /// Longest pause.
    longest_pause: Duration,
    /// The pauses begin anew once a watch has lasted this long.
    sound: Duration,
    /// How long one watch lasts before the API server ends it and another begins. Short, for it
    /// is also how long a connection that died silently is not noticed.
    watch: Duration,
    /// How long the API server may be silent on a connection;
    /// longer than a watch.
    silence: Duration,
}

/// Watches a Service.
struct Watch<'a> {
    settings: &'a KubernetesSettings,
    coalesce: Duration,
    members: &'a Members,
    /// The slices of a list that is being read; what was known stays until it is complete.
    listed: Option<Slices>,
    known: Slices,
    /// When changes are published.
    due: Option<Instant>,
    /// Since when the slices are known.
    since: Option<Instant>,
}

/// Watches a Service; never ends.
pub(super) async fn follow(
    service: KubernetesSettings,
    settings: DiscoverySettings,
    members: Members,
) {
    follow_with(service, settings, Patience::default(), members).await;
}

async fn follow_with(
    service: KubernetesSettings,
    settings: DiscoverySettings,
    patience: Patience,
    members: Members,
) {
    let mut failed = 0;
    let mut jitter = Jitter::default();
    loop {
        // The credentials may have changed since the last time.
        match open(&service, &patience).await {
            Ok(client) => {
                let api = Api::namespaced(client, &service.namespace);
                let mut watch = Watch::new(&service, settings.coalesce, &members);
                // Anew after whatever failed, so that nothing that was missed stays missed.
                let fault = watch.run(watcher(api, config(&service, &patience))).await;
                if watch.since.is_some_and(|since| since.elapsed() >= patience.sound) {
                    failed = 0;
                }
                watch.end(fault);
            }
            Err(fault) => members.failed(fault),
        }
        sleep(patience.pause(failed, jitter.next())).await;
        failed = failed.saturating_add(1);
    }
}

/// A way to the API server.
async fn open(service: &KubernetesSettings, patience: &Patience) -> Result<Client, String> {
    let mut config = match service.kubeconfig.clone() {
        Some(path) => {
            let shown = path.display().to_string();
            let bad = |error: &dyn std::fmt::Display| short(&format!("{shown}: {error}"));
            // Files may lie on slow or hanging storage.
            let read = tokio::task::spawn_blocking(move || Kubeconfig::read_from(path)).await;
            let read = read.map_err(|error| bad(&error))?.map_err(|error| bad(&error))?;
            Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(|error| bad(&error))?
        }
        None => match Config::incluster() {
            Ok(config) => config,
            Err(_) => Config::infer().await.map_err(|error| short(&error.to_string()))?,
        },
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(patience.silence);
    config.reset_reader_on_write = true;
    // Failures are told, and tried again here.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| short(&error.to_string()))
}

fn config(service: &KubernetesSettings, patience: &Patience) -> watcher::Config {
    let seconds = u32::try_from(patience.watch.as_secs()).unwrap_or(u32::MAX).max(1);
    watcher::Config::default()
        .labels(&format!("kubernetes.io/service-name={}", service.service))
        .timeout(seconds)
}

// === impl Watch ===

impl<'a> Watch<'a> {
    fn new(settings: &'a KubernetesSettings, coalesce: Duration, members: &'a Members) -> Self {
        let known = Slices::default();
        Self { settings, coalesce, members, listed: None, known, due: None, since: None }
    }

    /// Until something fails; what that was.
    async fn run(
        &mut self,
        events: impl Stream<Item = watcher::Result<Event<EndpointSlice>>>,
    ) -> String {
        let mut events = pin!(events);
        loop {
            let due = self.due;
            tokio::select! {
                // A change that is due is not put off by ever more changes.
                biased;
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.publish(None);
                }
                event = events.next() => match event {
                    Some(Ok(event)) => self.take(event),
                    Some(Err(error)) => return tell(&error, self.settings),
                    None => return "the watch ended".to_owned(),
                },
            }
        }
    }

    fn take(&mut self, event: Event<EndpointSlice>) {
        match event {
            Event::Init => self.listed = Some(Slices::default()),
            Event::InitApply(slice) => {
                self.listed.get_or_insert_default().insert(&slice, self.settings);
            }
            Event::InitDone => {
                self.known = self.listed.take().unwrap_or_default();
                self.since = self.since.or_else(|| Some(Instant::now()));
                self.changed();
            }
            Event::Apply(slice) => {
                self.known.insert(&slice, self.settings);
                self.changed();
            }
            Event::Delete(slice) => {
                self.known.remove(&slice);
                self.changed();
            }
        }
    }

    fn changed(&mut self) {
        self.due = self.due.or_else(|| Instant::now().checked_add(self.coalesce));
    }

    fn publish(&mut self, fault: Option<String>) {
        self.due = None;
        let fault = fault.or_else(|| self.known.fault(self.settings));
        self.members.found(self.known.endpoints(), fault);
    }

    /// Publishes what there was with what failed: where slices may be listed and not watched,
    /// the fault stays and the endpoints are fresh.
    fn end(&mut self, fault: String) {
        if self.due.is_some() {
            self.publish(Some(fault));
        } else {
            self.members.failed(fault);
        }
    }
}

// === impl Patience ===

impl Patience {
    /// After `failed` failures before this one. `at`, 0 to 1, spreads routers that failed
    /// together: half to all of it.
    fn pause(&self, failed: u32, at: f64) -> Duration {
        let doubled = self.first_pause.saturating_mul(1 << failed.min(16));
        doubled.min(self.longest_pause).mul_f64(0.5 + 0.5 * at.clamp(0.0, 1.0))
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            first_pause: Duration::from_millis(500),
            longest_pause: Duration::from_secs(30),
            sound: Duration::from_mins(1),
            watch: Duration::from_mins(1),
            silence: Duration::from_secs(75),
        }
    }
}

/// What failed, and what to do about it where that is known.
fn tell(error: &watcher::Error, settings: &KubernetesSettings) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    };
    match status.map(|status| (status.code, status.message.as_str())) {
        Some((401, _)) => "the API server does not accept the credentials (401)".to_owned(),
        Some((403, message)) => short(&format!(
            "a Role must permit list and watch of endpointslices in discovery.k8s.io in the \
             namespace {}: {message}",
            settings.namespace
        )),
        Some((code, message)) => short(&format!("the API server answers {code}: {message}")),
        None => short(&chain(error)),
    }
}

/// An error with its causes in one line, each told once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        if !text.contains(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = error.source();
    }
    text
}

fn short(text: &str) -> String {
    text.chars().take(MAX_FAULT).collect()
}
