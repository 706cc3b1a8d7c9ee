//! The settings of `sleuth serve`: one table of keys, four places that values come from.
//!
//! A flag wins over the environment, the environment over the file, the file over the default.
//! All values are read and checked before anything starts, and every fault is told at once.

mod check;
mod flags;
mod keys;
mod layers;
mod print;
mod values;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use sleuth_router::RouterSettings;
use sleuth_server::{HttpSettings, ServerSettings};
use sleuth_service::{ServiceSettings, SwapSettings};
use sleuth_telemetry::LogSettings;

pub(crate) use self::flags::{Flags, RouteFlags, ServeFlags};
use self::keys::Key;
use self::layers::{Fault, Origin};
pub(crate) use self::print::{json, markdown, toml};
use crate::arguments::{
    BuiltinArguments, DeviceArguments, EndpointArguments, EngineArguments, Kv, ModelArguments,
    SecurityArguments,
};
use crate::environment;

/// All settings of a server, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) model: ModelArguments,
    pub(crate) engine: EngineArguments,
    /// Instead of a model: tokens per second and seconds per batch.
    pub(crate) simulated_device: Option<(f64, f64)>,
    pub(crate) server: ServerSettings,
    pub(crate) service: ServiceSettings,
    /// How versions are exchanged.
    pub(crate) swap: SwapSettings,
    /// A plain listener may have another address than loopback.
    pub(crate) insecure: bool,
    pub(crate) tls_certificate: Option<PathBuf>,
    pub(crate) tls_key: Option<PathBuf>,
    pub(crate) tls_client_ca: Option<PathBuf>,
    /// Where probes are answered.
    pub(crate) admin_listen: Option<SocketAddr>,
    pub(crate) admin_insecure: bool,
    /// Where the HTTP facades listen.
    pub(crate) http_listen: Option<SocketAddr>,
    pub(crate) http_insecure: bool,
    pub(crate) http: HttpSettings,
    pub(crate) log: LogSettings,
    pub(crate) observe: ObserveSettings,
    pub(crate) builtin: BuiltinArguments,
    pub(crate) endpoint: EndpointArguments,
    pub(crate) router: RouteSettings,
}

/// Where a router's replicas are, and how it treats them.
#[derive(Clone, Debug)]
pub(crate) struct RouteSettings {
    /// As [`sleuth_router::discovery::Source`] reads it.
    pub(crate) replicas: Option<String>,
    pub(crate) kubeconfig: Option<PathBuf>,
    pub(crate) security: SecurityArguments,
    pub(crate) settings: RouterSettings,
}

/// What a server tells of itself.
#[derive(Clone, Debug)]
pub(crate) struct ObserveSettings {
    /// Tenants that are counted apart.
    pub(crate) tenants: usize,
    /// Rewards to compare with.
    pub(crate) baseline: Option<PathBuf>,
    /// Of an OTLP collector.
    pub(crate) endpoint: Option<String>,
    /// Share of traces that are sent.
    pub(crate) sample: f64,
    pub(crate) service_name: String,
    /// Names and values.
    pub(crate) attributes: Vec<(String, String)>,
}

/// A key's effective value and where it comes from. No text: not set.
#[derive(Clone, Debug)]
pub(crate) struct Effective {
    pub(crate) key: &'static Key,
    pub(crate) text: Option<String>,
    pub(crate) origin: Origin,
}

/// Settings, and what each of them comes from.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) settings: Settings,
    pub(crate) effective: Vec<Effective>,
}

/// Reads all places, in this process's environment.
pub(crate) fn resolve(file: Option<&Path>, flags: &Flags) -> Result<Resolved> {
    let variables = environment::settings();
    let named = variables.iter().find(|(name, _)| name == layers::CONFIG_VARIABLE);
    let file = file.map(Path::to_owned).or_else(|| named.map(|(_, path)| PathBuf::from(path)));
    resolve_from(file.as_deref(), &variables, flags).map_err(|faults| refused(&faults))
}

/// Reads a file alone, and the files that it names.
pub(crate) fn check_file(file: &Path) -> Result<()> {
    let resolved =
        resolve_from(Some(file), &[], &Flags::default()).map_err(|faults| refused(&faults))?;
    let faults = sleuth_server::Server::check_files(&resolved.settings.server);
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> =
        faults.into_iter().map(|f| format!("{:#}", anyhow::Error::from(f))).collect();
    bail!("{} files cannot be used\n  {}", lines.len(), lines.join("\n  "));
}

fn refused(faults: &[Fault]) -> anyhow::Error {
    let lines: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let count = if lines.len() == 1 { "a setting is" } else { "some settings are" };
    anyhow::anyhow!("{count} not valid\n  {}", lines.join("\n  "))
}

fn resolve_from(
    file: Option<&Path>,
    variables: &[(String, String)],
    flags: &Flags,
) -> Result<Resolved, Vec<Fault>> {
    let mut faults = Vec::new();
    let effective = layers::merge(file, variables, flags, &mut faults);
    let mut settings = Settings::unset();
    for Effective { key, text, origin } in &effective {
        let Some(text) = text else { continue };
        if (key.set)(&mut settings, text).is_none() {
            faults.push(Fault::value(key, text, origin.clone()));
        }
    }
    check::together(&mut settings, &effective, &mut faults);
    if faults.is_empty() { Ok(Resolved { settings, effective }) } else { Err(faults) }
}

// === impl Settings ===

impl Settings {
    /// What the table's defaults are written over.
    fn unset() -> Self {
        Self {
            model: ModelArguments { model: None, adapter: None, no_adapter: false, tau: 1.0 },
            engine: EngineArguments {
                workers: 1,
                threads: None,
                kv: Kv::F32,
                prefix_cache: None,
                vision_cache: None,
                on: DeviceArguments::CPU,
            },
            simulated_device: None,
            server: ServerSettings::default(),
            service: ServiceSettings::default(),
            swap: SwapSettings::default(),
            insecure: false,
            tls_certificate: None,
            tls_key: None,
            tls_client_ca: None,
            admin_listen: None,
            admin_insecure: false,
            http_listen: None,
            http_insecure: false,
            http: HttpSettings::default(),
            log: LogSettings::default(),
            observe: ObserveSettings {
                tenants: 0,
                baseline: None,
                endpoint: None,
                sample: 0.0,
                service_name: String::new(),
                attributes: Vec::new(),
            },
            builtin: BuiltinArguments { corrector_memory: None, corrector_tau: 0.0 },
            endpoint: EndpointArguments {
                endpoint_url: None,
                endpoint_model: None,
                endpoint_key_file: None,
                endpoint_allow: Vec::new(),
                endpoint_image: true,
                endpoint_timeout: 0,
                endpoint_attempts: 0,
                endpoint_concurrency: 0,
                endpoint_requests_per_minute: None,
            },
            router: RouteSettings {
                replicas: None,
                kubeconfig: None,
                security: SecurityArguments::default(),
                settings: RouterSettings::default(),
            },
        }
    }
}

#[cfg(test)]
mod tests;
