//! What single values do not tell: settings that do not go together.

use sleuth_server::{HttpSettings, TlsSettings};

use super::layers::Fault;
use super::{Effective, Settings};

/// Checks the settings together, and puts the parts together that are written apart.
pub(super) fn together(settings: &mut Settings, effective: &[Effective], faults: &mut Vec<Fault>) {
    let mut fault = |why: String| faults.push(Fault::Together(why));
    let said = |name| place(effective, name);
    match (&settings.tls_certificate, &settings.tls_key) {
        (Some(certificate), Some(key)) => {
            settings.server.tls = Some(TlsSettings {
                certificate: certificate.clone(),
                key: key.clone(),
                client_ca: settings.tls_client_ca.clone(),
            });
        }
        (Some(_), None) => fault(format!("{} needs tls.key", said("tls.certificate"))),
        (None, Some(_)) => fault(format!("{} needs tls.certificate", said("tls.key"))),
        (None, None) if settings.tls_client_ca.is_some() => {
            fault(format!("{} needs tls.certificate and tls.key", said("tls.client_ca")));
        }
        (None, None) => {}
    }
    let server = &settings.server;
    let is_plain = settings.tls_certificate.is_none() && settings.tls_key.is_none();
    if is_plain && !server.listen.ip().is_loopback() && !settings.insecure {
        let tokens =
            if server.credentials.is_some() { ", and tokens would be readable" } else { "" };
        fault(format!(
            "{} is not loopback and the listener is plain{tokens}; set tls.certificate and \
             tls.key, or server.insecure (--insecure) if the network is trusted",
            said("server.listen")
        ));
    }
    if let Some(admin) = settings.admin_listen {
        if !admin.ip().is_loopback() && !settings.admin_insecure {
            fault(format!(
                "{} is not loopback and the admin port is plain; set admin.insecure \
                 (--admin-insecure) if the network is trusted",
                said("admin.listen")
            ));
        }
        if admin == server.listen && admin.port() != 0 {
            fault(format!("{} is the address of server.listen too", said("admin.listen")));
        }
    }
    if let Some(http) = settings.http_listen {
        if is_plain && !http.ip().is_loopback() && !settings.http_insecure {
            fault(format!(
                "{} is not loopback and the listener is plain; set tls.certificate and tls.key, or \
                 http.insecure (--http-insecure) if the network is trusted",
                said("http.listen")
            ));
        }
        if http.port() != 0 && (http == server.listen || settings.admin_listen == Some(http)) {
            fault(format!("{} is an address of another listener too", said("http.listen")));
        }
    }
    if server.tenant_header.is_some()
        && (server.credentials.is_some() || settings.tls_client_ca.is_some())
    {
        fault(format!("{}: tenants come from credentials", said("server.tenant_header")));
    }
    if settings.model.adapter.is_some() && settings.model.no_adapter {
        fault(format!("{} and model.no_adapter exclude each other", said("model.adapter")));
    }
    let endpoint = &settings.endpoint;
    match (&endpoint.endpoint_url, &endpoint.endpoint_model) {
        (Some(_), None) => {
            fault(format!("{} needs corrector.endpoint_model", said("corrector.endpoint_url")));
        }
        (None, Some(_)) => {
            fault(format!("{} needs corrector.endpoint_url", said("corrector.endpoint_model")));
        }
        _ => {}
    }
    settings.server.http =
        settings.http_listen.map(|listen| HttpSettings { listen, ..settings.http });
    if sleuth_telemetry::check_filter(&settings.log.filter).is_err() {
        fault(format!("{}: is no list of log directives", said("log.filter")));
    }
}

/// A key as it was said, for a message.
fn place(effective: &[Effective], name: &str) -> String {
    let found = effective.iter().find(|effective| effective.key.name == name);
    match found {
        Some(Effective { text: Some(text), origin, .. }) => {
            format!("{name} = {} ({origin})", super::values::shown(text))
        }
        Some(_) | None => name.to_owned(),
    }
}
