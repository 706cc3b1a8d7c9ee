//! What a router tells Prometheus, and `sleuth top`. `docs/observability.md` lists every name.

use std::fmt;

use axum::Router as Pages;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use serde_json::{Value, json};
use sleuth_telemetry::metrics::{Collector, Family};

use crate::judge::Cause;
use crate::placement::Reason;
use crate::{Router, view};

/// A router's figures, read when somebody asks for them.
#[derive(Debug)]
pub struct RouterMetrics {
    router: Router,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReplica {
    replica: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCause {
    cause: &'static str,
}

/// `GET /replicas`: one JSON object, for `sleuth top` and scripts.
pub fn replicas_page(router: Router) -> Pages {
    let answer = |State(router): State<Router>| async move {
        ([(CONTENT_TYPE, "application/json")], page(&router).to_string()).into_response()
    };
    Pages::new().route("/replicas", get(answer)).with_state(router)
}

/// What the page says; `docs/routing.md` has its fields.
fn page(router: &Router) -> Value {
    let view = router.view();
    let seconds = |d: Option<std::time::Duration>| d.map(|d| d.as_secs_f64());
    let replicas = view.replicas.iter().map(|replica| {
        let view::ReplicaView { snapshot, load, counts, .. } = replica;
        json!({
            "name": snapshot.id.as_str(),
            "url": replica.url,
            "state": replica.state(),
            "why": replica.unfit.as_ref().or(replica.unreached.as_ref()),
            "weight": snapshot.weight,
            "version": snapshot.version.as_deref(),
            "queue_seconds": load.queue.as_secs_f64(),
            "load_seconds": snapshot.load,
            "unfinished_items": snapshot.unfinished,
            "resident_prefixes": snapshot.resident,
            "kv_used_bytes": load.kv_used_bytes,
            "kv_limit_bytes": load.kv_limit_bytes,
            "placed_seconds": counts.placed_seconds,
            "scored": counts.scored,
            "positions_reused": counts.positions_reused,
            "positions_computed": counts.positions_computed,
            "p50_seconds": seconds(counts.percentile(50.0)),
            "p99_seconds": seconds(counts.percentile(99.0)),
            "ejections": replica.ejections,
            "placed": by_name(Reason::ALL.map(Reason::name), &snapshot.placed),
        })
    });
    let counts = &view.counts;
    json!({
        "replicas": replicas.collect::<Vec<_>>(),
        "groups": view.groups,
        "imbalance": view.imbalance(),
        "placed": by_name(Reason::ALL.map(Reason::name), &counts.placed),
        "retried": by_name(Cause::ALL.map(Cause::name), &counts.retried),
        "retries_refused": counts.retries_refused,
        "failovers": counts.failovers,
        "ejections": counts.ejections,
        "prefixes_computed": counts.prefixes_computed,
        "positions_reused": counts.positions_reused,
        "positions_computed": counts.positions_computed,
        "images_sent": counts.images_sent,
    })
}

fn by_name<const N: usize>(names: [&str; N], counts: &[u64; N]) -> Value {
    names.iter().zip(counts).map(|(name, count)| ((*name).to_owned(), json!(count))).collect()
}

// === impl RouterMetrics ===

impl RouterMetrics {
    /// Of a router.
    pub const fn new(router: Router) -> Self {
        Self { router }
    }
}

impl Collector for RouterMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let view = self.router.view();
        let counts = &view.counts;
        let reasons = Reason::ALL.iter().zip(&counts.placed);
        let reasons = reasons.map(|(reason, n)| (ByReason { reason: reason.name() }, *n));
        let help = "Items placed, by why they went where they went.";
        Family::new(encoder, "router_placements", help).counters(reasons)?;
        let causes = Cause::ALL.iter().zip(&counts.retried);
        let causes = causes.map(|(cause, n)| (ByCause { cause: cause.name() }, *n));
        let help = "Attempts after the first, by what ended the one before.";
        Family::new(encoder, "router_retries", help).counters(causes)?;
        let totals = [
            (
                "router_retries_refused",
                "Attempts for which there was no budget.",
                counts.retries_refused,
            ),
            (
                "router_failovers",
                "Items computed again as their replica was lost.",
                counts.failovers,
            ),
            (
                "router_ejections",
                "Times that a replica was left out for its faults.",
                counts.ejections,
            ),
            (
                "router_prefixes_computed",
                "Prefixes that replicas computed.",
                counts.prefixes_computed,
            ),
            (
                "router_prefix_positions_reused",
                "Positions that replicas held.",
                counts.positions_reused,
            ),
            (
                "router_prefix_positions_computed",
                "Positions that they computed.",
                counts.positions_computed,
            ),
            ("router_images_sent", "Images sent to replicas.", counts.images_sent),
        ];
        for (name, help, count) in totals {
            Family::new(encoder, name, help).counter(count)?;
        }
        let help = "Busiest replica's predicted seconds over their mean; 1 is even.";
        Family::new(encoder, "router_imbalance", help).gauge(view.imbalance())?;
        let of = |replica: &view::ReplicaView| OfReplica {
            replica: replica.snapshot.id.as_str().to_owned(),
        };
        let loads = view.replicas.iter().map(|r| (of(r), r.snapshot.load));
        let help = "Predicted seconds of work at a replica, what is expected included.";
        Family::new(encoder, "router_replica_load_seconds", help).gauges(loads)?;
        let weights = view.replicas.iter().map(|r| (of(r), r.snapshot.weight));
        let help = "Share of its items that a replica gets, 0 to 1.";
        Family::new(encoder, "router_replica_weight", help).gauges(weights)?;
        let unfinished = view.replicas.iter().map(|r| (of(r), r.snapshot.unfinished as u64));
        let help = "Items without a verdict at a replica.";
        Family::new(encoder, "router_replica_items", help).gauges(unfinished)?;
        let images = self.router.image_store().stats();
        let help = "Images that are held for items to name.";
        Family::new(encoder, "images", help).gauge(images.images as u64)
    }
}
