//! A source as it is written on a command line.

use std::net::IpAddr;
use std::str::FromStr;

use super::{DnsSettings, KubernetesSettings, MAX_ENDPOINTS, Scheme, ServicePort, Source, fixed};

/// Why a text says no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It begins with no known scheme.
    #[error(
        "replicas are given as http://a:50051,http://b:50051 or dns://name.namespace.svc:50051 or \
         kubernetes://namespace/service:port"
    )]
    Unknown,
    /// An entry of a list is no replica.
    #[error("replica {number}, {entry:?}, {problem}; each is given as http://host:port")]
    Entry {
        /// Which one, from 1.
        number: usize,
        /// Its first 80 characters, without a password.
        entry: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The list is too long.
    #[error("{entries} replicas are listed; {MAX_ENDPOINTS} are the most")]
    TooMany {
        /// How many there are.
        entries: usize,
    },
    /// It is no DNS name with a port.
    #[error("{problem}; a DNS name is given as dns://name.namespace.svc:50051")]
    Dns {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// It is no Service with a port.
    #[error(
        "{problem}; a Service is given as kubernetes://namespace/service:grpc or \
         kubernetes://namespace/service:50051"
    )]
    Kubernetes {
        /// What is wrong with it.
        problem: &'static str,
    },
}

// === impl Source ===

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let text = text.trim();
        let (scheme, rest) = text.split_once("://").ok_or(SourceError::Unknown)?;
        match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => fixed::read(text).map(Self::Fixed),
            "dns" | "dns+http" => dns(rest, Scheme::Http).map(Self::Dns),
            "dns+https" => dns(rest, Scheme::Https).map(Self::Dns),
            "kubernetes" | "kubernetes+http" => kubernetes(rest, Scheme::Http),
            "kubernetes+https" => kubernetes(rest, Scheme::Https),
            _ => Err(SourceError::Unknown),
        }
    }
}

fn dns(rest: &str, scheme: Scheme) -> Result<DnsSettings, SourceError> {
    let bad = |problem| SourceError::Dns { problem };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or(bad("the port is missing"))?;
    if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
        return Err(bad("an address needs no DNS: give it as http://address:port"));
    }
    if !is_dns_name(host) {
        return Err(bad("the name is none that DNS allows"));
    }
    let port = number(port).ok_or(bad("the port is no number from 1 to 65535"))?;
    Ok(DnsSettings::new(host.to_ascii_lowercase(), port, scheme))
}

fn kubernetes(rest: &str, scheme: Scheme) -> Result<Source, SourceError> {
    let bad = |problem| SourceError::Kubernetes { problem };
    let (namespace, rest) = rest.split_once('/').ok_or(bad("the Service is missing"))?;
    let (service, port) = rest.rsplit_once(':').ok_or(bad("the port is missing"))?;
    if !is_label(namespace) {
        return Err(bad("the namespace is no name that Kubernetes allows"));
    }
    if !is_label(service) {
        return Err(bad("the Service is no name that Kubernetes allows"));
    }
    let port = if port.bytes().all(|byte| byte.is_ascii_digit()) {
        ServicePort::Number(number(port).ok_or(bad("the port is no number from 1 to 65535"))?)
    } else if is_label(port) {
        ServicePort::Name(port.to_owned())
    } else {
        return Err(bad("the port is neither a number nor a name that Kubernetes allows"));
    };
    Ok(Source::Kubernetes(KubernetesSettings {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        port,
        scheme,
        kubeconfig: None,
    }))
}

fn number(text: &str) -> Option<u16> {
    // `parse` would take a sign.
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|port| digits && *port != 0)
}

/// RFC 1123: what names of namespaces, Services and their ports are.
fn is_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// RFC 1035, and underscores, which are in use.
fn is_dns_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    name.len() <= 253 && name.split('.').all(label)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> String {
        text.parse::<Source>().unwrap_err().to_string()
    }

    #[test]
    fn lists_are_read_and_named_by_host_and_port() {
        let text = " http://a:50051, https://B.example ,http://[::1]:7,http://10.0.0.1:80/ ";
        let Source::Fixed(endpoints) = text.parse().unwrap() else { panic!("no list") };
        let seen: Vec<_> = endpoints.iter().map(|e| (&*e.name, &*e.url)).collect();
        let wanted = [
            ("a:50051", "http://a:50051"),
            ("b.example:443", "https://b.example:443"),
            ("[::1]:7", "http://[::1]:7"),
            ("10.0.0.1:80", "http://10.0.0.1:80"),
        ];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn what_is_wrong_with_a_list_is_told_with_the_entry() {
        let bad = [
            ("http://a:1,,http://b:1", "replica 2, \"\", is empty"),
            ("http://a:1,http://A:1", "replica 2, \"http://A:1\", is the same"),
            ("http://a:1,dns://b:1", "replica 2, \"dns://b:1\", begins with neither"),
            ("http://a:99999", "is no URL"),
            ("http://a:0", "has port 0"),
            ("http://0.0.0.0:5", "for listening"),
            ("http://a:1/v1", "something after"),
            ("http://a:1?x", "something after"),
            ("http://", "is no URL"),
        ];
        for (text, wanted) in bad {
            assert!(told(text).contains(wanted), "{text}: {}", told(text));
        }
        let secret = told("http://user:hunter2@a:1");
        assert!(secret.contains("password") && !secret.contains("hunter2"), "{secret}");
        let many = vec!["http://a:1"; MAX_ENDPOINTS + 1].join(",");
        assert!(told(&many).contains("1025 replicas"), "{}", told(&many));
    }

    #[test]
    fn a_dns_name_has_a_port_and_is_no_address() {
        let wanted = DnsSettings::new("sleuth.ns.svc", 50051, Scheme::Http);
        assert_eq!("dns://Sleuth.ns.svc:50051".parse(), Ok(Source::Dns(wanted)));
        let wanted = DnsSettings::new("sleuth.ns.svc.cluster.local.", 1, Scheme::Https);
        assert_eq!("dns+https://sleuth.ns.svc.cluster.local.:1/".parse(), Ok(Source::Dns(wanted)));
        let bad = [
            ("dns://name", "the port is missing"),
            ("dns://name:grpc", "no number from 1"),
            ("dns://name:+5", "no number from 1"),
            ("dns://name:0", "no number from 1"),
            ("dns://a..b:1", "none that DNS allows"),
            ("dns://:1", "none that DNS allows"),
            ("dns://10.0.0.1:1", "needs no DNS"),
            ("dns://[::1]:1", "needs no DNS"),
        ];
        for (text, wanted) in bad {
            assert!(told(text).contains(wanted), "{text}: {}", told(text));
            assert!(told(text).contains("dns://name.namespace.svc:50051"));
        }
    }

    #[test]
    fn a_service_has_a_namespace_and_a_port_by_name_or_number() {
        let port = |text: &str| match text.parse() {
            Ok(Source::Kubernetes(settings)) => (settings.service, settings.port, settings.scheme),
            other => panic!("{other:?}"),
        };
        let name = |name: &str| ServicePort::Name(name.to_owned());
        let service = || "sleuth".to_owned();
        assert_eq!(port("kubernetes://ns/sleuth:grpc"), (service(), name("grpc"), Scheme::Http));
        let wanted = (service(), ServicePort::Number(50051), Scheme::Https);
        assert_eq!(port("kubernetes+https://ns/sleuth:50051"), wanted);
        let bad = [
            ("kubernetes://sleuth:1", "the Service is missing"),
            ("kubernetes://ns/sleuth", "the port is missing"),
            ("kubernetes://ns/sleuth:", "the port is no number"),
            ("kubernetes://ns/sleuth:70000", "the port is no number"),
            ("kubernetes://ns/Sleuth:1", "the Service is no name"),
            ("kubernetes:///sleuth:1", "the namespace is no name"),
            ("kubernetes://ns/a/b:1", "the Service is no name"),
            ("kubernetes://ns/a:g_r", "neither a number nor a name"),
        ];
        for (text, wanted) in bad {
            assert!(told(text).contains(wanted), "{text}: {}", told(text));
        }
        for text in ["", "a:50051", "grpc://a:1", "://"] {
            assert_eq!(text.parse::<Source>(), Err(SourceError::Unknown), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(http|https|dns|kubernetes|)(://)?[ -~é]{0,60}") {
            let _ = text.parse::<Source>();
        }
    }
}
