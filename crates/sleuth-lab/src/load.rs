//! An open-loop load generator with a checker.
//!
//! A [`Plan`] says when every item arrives. [`drive`] sends each at its moment to a [`Target`],
//! whether or not earlier ones have been answered, and counts latency from that moment, so that a
//! slow server cannot slow the questions down and hide it. A [`Ledger`] accounts for every item. A
//! [`Report`] tells what came of it, and [`plot`] draws it.

mod drive;
mod ledger;
mod measure;
mod plan;
mod plot;
mod remote;
mod report;
mod series;
mod target;
mod words;

use std::time::Duration;

use serde::Serializer;

pub use drive::{DriveSettings, Outcome, Retries, drive};
pub use ledger::{Attempt, Counts, Ledger, Verdict};
pub use measure::{CurvePoint, Measured, Percentiles};
pub use plan::{Arrival, Arrivals, Plan, PlanError, PlanSettings, Until};
pub use plot::plot;
pub use remote::{Remote, RemoteSettings};
pub use report::{Report, Settings};
pub use series::Point;
pub use sleuth_client::{ClientCertificate, Security};
pub use target::{Answer, Stray, Target};
pub use words::response;

/// A duration is told as seconds.
fn seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}
