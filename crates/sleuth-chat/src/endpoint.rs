use std::fmt;
use std::time::Duration;

use url::{Host, Url};

/// Where a model is asked.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// The whole address of the method.
    pub(crate) address: Url,
    pub(crate) model: String,
    pub(crate) key: Option<ApiKey>,
}

/// A secret; what prints it prints that there is one.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

/// Bounds of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of one attempt, from connecting to the reply's last byte.
    pub timeout: Duration,
    /// Attempts in all; at least 1.
    pub attempts: u32,
    /// Wait before the second attempt; doubled for each further one, unless the server says how
    /// long (`Retry-After`).
    pub backoff: Duration,
    /// No wait is longer, whatever the server asks for.
    pub longest_wait: Duration,
    /// Of a reply's body.
    pub reply_bytes: usize,
}

/// Why an address is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEndpoint {
    /// It is no URL.
    #[error("not a URL; one looks like http://localhost:8000/v1")]
    Syntax,
    /// It is neither http nor https.
    #[error("only http and https are spoken")]
    Scheme,
    /// A user or a password stands in it.
    #[error("holds a user or a password; give a key instead")]
    Credentials,
    /// No model is named.
    #[error("the model's name is empty")]
    Model,
}

// === impl Endpoint ===

impl Endpoint {
    /// `base` is the address up to the version, such as `http://localhost:8000/v1`.
    pub fn new(base: &str, model: &str, key: Option<ApiKey>) -> Result<Self, BadEndpoint> {
        let mut address = Url::parse(base).map_err(|_| BadEndpoint::Syntax)?;
        if !["http", "https"].contains(&address.scheme()) {
            return Err(BadEndpoint::Scheme);
        }
        if !address.username().is_empty() || address.password().is_some() {
            return Err(BadEndpoint::Credentials);
        }
        if model.is_empty() {
            return Err(BadEndpoint::Model);
        }
        address
            .path_segments_mut()
            .map_err(|()| BadEndpoint::Syntax)?
            .pop_if_empty()
            .extend(["chat", "completions"]);
        Ok(Self { address, model: model.to_owned(), key })
    }

    /// The name or address of the machine that is asked; IPv6 without brackets.
    pub fn host(&self) -> &str {
        let host = self.address.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Whether that is this machine, by its name or address alone.
    pub fn is_loopback(&self) -> bool {
        match self.address.host() {
            Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }
}

// === impl ApiKey ===

impl ApiKey {
    /// Takes a key; space around it, as files have, is dropped. `None` where nothing is left.
    pub fn new(key: &str) -> Option<Self> {
        let key = key.trim();
        (!key.is_empty()).then(|| Self(key.to_owned()))
    }

    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(..)")
    }
}

// === impl Limits ===

impl Default for Limits {
    fn default() -> Self {
        Self {
            timeout: Duration::from_mins(1),
            attempts: 5,
            backoff: Duration::from_secs(1),
            longest_wait: Duration::from_mins(1),
            reply_bytes: 1 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_method_follows_the_base() {
        for base in ["http://localhost:8000/v1", "http://localhost:8000/v1/"] {
            let endpoint = Endpoint::new(base, "m", None).unwrap();
            assert_eq!(endpoint.address.as_str(), "http://localhost:8000/v1/chat/completions");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused() {
        let refused = |base, model| Endpoint::new(base, model, None).unwrap_err();
        assert_eq!(refused("localhost", "m"), BadEndpoint::Syntax);
        assert_eq!(refused("file:///etc/passwd", "m"), BadEndpoint::Scheme);
        assert_eq!(refused("http://me:secret@host/v1", "m"), BadEndpoint::Credentials);
        assert_eq!(refused("http://host/v1", ""), BadEndpoint::Model);
    }

    #[test]
    fn loopback_is_known_by_name_and_address() {
        for (base, host, here) in [
            ("http://localhost:8000/v1", "localhost", true),
            ("http://127.8.0.1/v1", "127.8.0.1", true),
            ("http://[::1]:80/v1", "::1", true),
            ("http://0x7f.1/v1", "127.0.0.1", true),
            ("http://localhost.example.com/v1", "localhost.example.com", false),
            ("http://169.254.169.254/v1", "169.254.169.254", false),
        ] {
            let endpoint = Endpoint::new(base, "m", None).unwrap();
            assert_eq!((endpoint.host(), endpoint.is_loopback()), (host, here), "{base}");
        }
    }

    #[test]
    fn a_key_is_never_shown() {
        let key = ApiKey::new(" sk-secret\n").unwrap();
        assert_eq!(key.reveal(), "sk-secret");
        let endpoint = Endpoint::new("http://host/v1", "m", Some(key)).unwrap();
        assert!(!format!("{endpoint:?}").contains("secret"));
        assert_eq!(ApiKey::new(" \n"), None);
    }
}
