//! A list of URLs.

use std::collections::HashSet;
use std::sync::Arc;

use url::{Host, Url};

use super::{Endpoint, EndpointState, MAX_ENDPOINTS, SourceError};

/// Reads URLs with commas between them.
pub(super) fn read(text: &str) -> Result<Vec<Endpoint>, SourceError> {
    let entries = text.split(',').count();
    if entries > MAX_ENDPOINTS {
        return Err(SourceError::TooMany { entries });
    }
    let mut names: HashSet<Arc<str>> = HashSet::with_capacity(entries);
    let mut endpoints = Vec::with_capacity(entries);
    for (index, entry) in text.split(',').enumerate() {
        let entry = entry.trim();
        let bad = |problem| SourceError::Entry { number: index + 1, entry: short(entry), problem };
        let endpoint = endpoint(entry).map_err(bad)?;
        if !names.insert(Arc::clone(&endpoint.name)) {
            return Err(bad("is the same replica as one before it"));
        }
        endpoints.push(endpoint);
    }
    Ok(endpoints)
}

fn endpoint(entry: &str) -> Result<Endpoint, &'static str> {
    if entry.is_empty() {
        return Err("is empty");
    }
    let url = Url::parse(entry).map_err(|_| "is no URL")?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("begins with neither http:// nor https://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password, which are never sent");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return Err("has something after host and port");
    }
    let (host, port) = url.host().zip(url.port_or_known_default()).ok_or("has no host")?;
    if port == 0 {
        return Err("has port 0");
    }
    if matches!(&host, Host::Ipv4(ip) if ip.is_unspecified())
        || matches!(&host, Host::Ipv6(ip) if ip.is_unspecified())
    {
        return Err("names no host: an address of zeros is for listening");
    }
    let name = format!("{host}:{port}");
    Ok(Endpoint {
        url: format!("{}://{name}", url.scheme()),
        name: name.into(),
        zone: None,
        state: EndpointState::Ready,
    })
}

/// What is repeated in an error, without what a URL may hold of secrets.
fn short(entry: &str) -> String {
    let shown = match entry.rsplit_once('@') {
        Some((_, host)) => format!("…@{host}"),
        None => entry.to_owned(),
    };
    shown.chars().take(80).collect()
}
