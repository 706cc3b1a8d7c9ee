//! Publishes memberships: sorted, each name once, bounded, and only where something changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use super::{Endpoint, MAX_ENDPOINTS, Membership};

/// The writing end of a membership.
#[derive(Debug)]
pub(super) struct Members {
    sender: watch::Sender<Membership>,
}

// === impl Members ===

impl Members {
    pub(super) fn new() -> (Self, watch::Receiver<Membership>) {
        let (sender, receiver) = watch::channel(Membership::default());
        (Self { sender }, receiver)
    }

    /// A look has succeeded. `fault` tells what is wrong with what was found nevertheless.
    pub(super) fn found(
        &self,
        endpoints: impl IntoIterator<Item = Endpoint>,
        fault: Option<String>,
    ) {
        let (endpoints, found) = tidy(endpoints);
        if self.publish(Membership { endpoints, known: true, fault }) && found > MAX_ENDPOINTS {
            tracing::warn!(found, kept = MAX_ENDPOINTS, "too many replicas; the rest is left out");
        }
    }

    /// A look has failed; the endpoints stay.
    pub(super) fn failed(&self, fault: String) {
        let mut next = self.sender.borrow().clone();
        next.fault = Some(fault);
        self.publish(next);
    }

    /// A look has failed, and the endpoints were kept long enough.
    pub(super) fn expired(&self, fault: String) {
        let known = self.sender.borrow().known;
        self.publish(Membership { endpoints: Vec::new(), known, fault: Some(fault) });
    }

    /// Whether that was news.
    fn publish(&self, next: Membership) -> bool {
        self.sender.send_if_modified(|seen| {
            if *seen == next {
                return false;
            }
            tell(seen, &next);
            *seen = next;
            true
        })
    }
}

/// Sorted by name, each name once (the first wins), at most [`MAX_ENDPOINTS`]; with the number of
/// names.
fn tidy(endpoints: impl IntoIterator<Item = Endpoint>) -> (Vec<Endpoint>, usize) {
    let mut named: BTreeMap<Arc<str>, Endpoint> = BTreeMap::new();
    for endpoint in endpoints {
        named.entry(Arc::clone(&endpoint.name)).or_insert(endpoint);
    }
    let found = named.len();
    (named.into_values().take(MAX_ENDPOINTS).collect(), found)
}

fn tell(seen: &Membership, next: &Membership) {
    if seen.endpoints != next.endpoints || !seen.known {
        tracing::info!(
            replicas = next.endpoints.len(),
            before = seen.endpoints.len(),
            "membership"
        );
    }
    match (&seen.fault, &next.fault) {
        (before, Some(fault)) if before.as_ref() != Some(fault) => {
            tracing::warn!(fault, kept = next.endpoints.len(), "replicas cannot be looked up");
        }
        (Some(_), None) => tracing::info!("replicas can be looked up again"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::super::Scheme;
    use super::*;

    fn endpoint(last: usize) -> Endpoint {
        let address = format!("10.0.{}.{}:1", last / 256, last % 256);
        Endpoint::at(Scheme::Http, address.parse().unwrap())
    }

    #[test]
    fn endpoints_are_sorted_told_once_and_bounded() {
        let (members, seen) = Members::new();
        members.found([endpoint(7), endpoint(3), endpoint(7)], None);
        let names: Vec<_> = seen.borrow().endpoints.iter().map(|e| e.name.to_string()).collect();
        assert_eq!(names, ["10.0.0.3:1", "10.0.0.7:1"]);
        members.found((0..2000).rev().map(endpoint), None);
        let many = seen.borrow().endpoints.clone();
        members.found((0..2000).map(endpoint), None);
        assert_eq!(many.len(), MAX_ENDPOINTS);
        assert_eq!(many, seen.borrow().endpoints, "the same in every router");
    }

    #[test]
    fn a_failed_look_keeps_the_endpoints_and_no_news_wakes_nobody() {
        let (members, mut seen) = Members::new();
        members.failed("away".to_owned());
        assert!(!seen.borrow().known);
        members.found([endpoint(1)], None);
        members.failed("away".to_owned());
        assert_eq!(seen.borrow().endpoints.len(), 1);
        assert_eq!(seen.borrow_and_update().fault.as_deref(), Some("away"));
        members.failed("away".to_owned());
        assert!(!seen.has_changed().unwrap());
        members.expired("away".to_owned());
        assert!(seen.borrow().endpoints.is_empty() && seen.borrow().known);
    }
}
