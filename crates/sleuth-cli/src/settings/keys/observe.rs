//! What a server tells of itself: metrics on the admin port, traces.

use super::super::values::{pairs, text, within};
use super::{Key, Kind, key, put, put_some};

pub(super) const OBSERVE: &[Key] = &[
    key(
        "metrics.tenants",
        "metrics-tenants",
        Kind::Number,
        Some("0"),
        "a whole number, 0 to 1000",
        "Count verdicts of so many tenants apart, the first that come; the others together",
        |s, t| put(&mut s.observe.tenants, within(t, 0, 1000)),
    ),
    key(
        "metrics.reward_baseline",
        "reward-baseline",
        Kind::Text,
        None,
        "a JSON file, as `sleuth eval --baseline` writes it",
        "Compare rewards with these",
        |s, t| put_some(&mut s.observe.baseline, text(t)),
    ),
    key(
        "traces.endpoint",
        "otlp-endpoint",
        Kind::Text,
        None,
        "the URL of an OTLP/gRPC collector, such as http://127.0.0.1:4317",
        "Where traces are sent",
        |s, t| put_some(&mut s.observe.endpoint, text(t)),
    ),
    key(
        "traces.sample",
        "trace-sample",
        Kind::Number,
        Some("0.01"),
        "a share, 0 to 1",
        "Share of traces that are sent unless callers decide; failures and the slowest hundredth always are",
        |s, t| put(&mut s.observe.sample, within(t, 0.0, 1.0)),
    ),
    key(
        "traces.name",
        "otlp-service-name",
        Kind::Text,
        Some("sleuth"),
        "a name",
        "The service's name in traces",
        |s, t| put(&mut s.observe.service_name, text(t)),
    ),
    key(
        "traces.attributes",
        "otlp-attributes",
        Kind::Text,
        None,
        "NAME=VALUE, more after commas",
        "More about this server for traces",
        |s, t| put(&mut s.observe.attributes, pairs(t)),
    ),
];
