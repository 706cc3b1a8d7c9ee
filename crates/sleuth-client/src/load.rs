use std::time::Duration;

use sleuth_core::LoadReport;
use sleuth_proto::v1;
use sleuth_proto::v1::replica_service_client::ReplicaServiceClient;
use sleuth_wire::load_report;
use tonic::Streaming;

use crate::ClientError;
use crate::security::Transport;

/// A server's load reports.
#[derive(Debug)]
pub struct Loads {
    reports: Streaming<v1::WatchLoadResponse>,
}

// === impl Loads ===

impl Loads {
    pub(crate) async fn watch(
        mut replica: ReplicaServiceClient<Transport>,
        least: Duration,
        most: Duration,
    ) -> Result<Self, ClientError> {
        let request = v1::WatchLoadRequest {
            min_interval: least.try_into().ok(),
            max_interval: most.try_into().ok(),
        };
        Ok(Self { reports: replica.watch_load(request).await?.into_inner() })
    }

    /// The next report; `None` once the server tells no more.
    pub async fn next(&mut self) -> Result<Option<LoadReport>, ClientError> {
        let Some(report) = self.reports.message().await? else { return Ok(None) };
        Ok(Some(load_report(report)?))
    }
}
