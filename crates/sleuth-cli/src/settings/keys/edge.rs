//! How a server is reached, by whom, and what it tells.

use sleuth_telemetry::LogFormat;

use super::super::values::{SWITCH, header, seconds, switch, text};
use super::{Key, Kind, key, put, put_some};

pub(super) const EDGE: &[Key] = &[
    key(
        "server.listen",
        "listen",
        Kind::Text,
        Some("127.0.0.1:50051"),
        "an address and a port, such as 127.0.0.1:50051; port 0 takes a free one",
        "Where gRPC is served",
        |s, t| put(&mut s.server.listen, t.parse().ok()),
    ),
    key(
        "server.insecure",
        "insecure",
        Kind::Switch,
        Some("false"),
        SWITCH,
        "Allow a plain listener on an address other than loopback, with tokens or without",
        |s, t| put(&mut s.insecure, switch(t)),
    ),
    key(
        "server.tenant_header",
        "tenant-header",
        Kind::Text,
        None,
        "a header's name",
        "Header that names a call's tenant; only behind a proxy that authenticates and sets it",
        |s, t| put_some(&mut s.server.tenant_header, header(t)),
    ),
    key(
        "server.drain_lag_seconds",
        "drain-lag",
        Kind::Number,
        Some("0"),
        "seconds, 0 to 600",
        "How long items are still taken after SIGTERM, so that balancers see that the server is not ready",
        |s, t| put(&mut s.server.drain_lag, seconds(t, 0.0, 600.0)),
    ),
    key(
        "server.drain_deadline_seconds",
        "drain-deadline",
        Kind::Number,
        Some("30"),
        "seconds, 0 to 86400",
        "What is unfinished this long after that is cut off",
        |s, t| put(&mut s.server.drain_deadline, seconds(t, 0.0, 86_400.0)),
    ),
    key(
        "tls.certificate",
        "tls-certificate",
        Kind::Text,
        None,
        "a PEM file",
        "The server's certificate chain, its own first; read again when it changes",
        |s, t| put_some(&mut s.tls_certificate, text(t)),
    ),
    key(
        "tls.key",
        "tls-key",
        Kind::Text,
        None,
        "a PEM file",
        "The certificate's private key",
        |s, t| put_some(&mut s.tls_key, text(t)),
    ),
    key(
        "tls.client_ca",
        "tls-client-ca",
        Kind::Text,
        None,
        "a PEM file",
        "Authorities of client certificates; with it every client must show one",
        |s, t| put_some(&mut s.tls_client_ca, text(t)),
    ),
    key(
        "auth.credentials",
        "credentials",
        Kind::Text,
        None,
        "a TOML file, see docs/security.md",
        "Callers that are known, by tokens' digests or certificates' names; read again when it changes",
        |s, t| put_some(&mut s.server.credentials, text(t)),
    ),
    key(
        "auth.reload_seconds",
        "reload-interval",
        Kind::Number,
        Some("5"),
        "seconds, 0.01 to 86400",
        "How often certificates and credentials are looked at for changes; SIGHUP does so at once",
        |s, t| put(&mut s.server.reload_interval, seconds(t, 0.01, 86_400.0)),
    ),
    key(
        "admin.listen",
        "admin-listen",
        Kind::Text,
        Some("127.0.0.1:50052"),
        "an address and a port, or `off`",
        "Where /livez, /readyz and /startupz are answered over plain HTTP, without credentials",
        |s, t| {
            s.admin_listen = if t == "off" { None } else { Some(t.parse().ok()?) };
            Some(())
        },
    ),
    key(
        "admin.insecure",
        "admin-insecure",
        Kind::Switch,
        Some("false"),
        SWITCH,
        "Allow the admin port on an address other than loopback",
        |s, t| put(&mut s.admin_insecure, switch(t)),
    ),
    key(
        "log.filter",
        "log-filter",
        Kind::Text,
        Some("info"),
        "directives, such as info,sleuth_engine=debug",
        "What is logged",
        |s, t| put(&mut s.log.filter, text(t)),
    ),
    key(
        "log.json",
        "log-json",
        Kind::Switch,
        Some("false"),
        SWITCH,
        "Log lines as JSON",
        |s, t| {
            put(
                &mut s.log.format,
                switch(t).map(|on| if on { LogFormat::Json } else { LogFormat::Pretty }),
            )
        },
    ),
];
