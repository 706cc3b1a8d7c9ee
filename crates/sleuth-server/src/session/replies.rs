use std::sync::Arc;

use sleuth_proto::v1;
use sleuth_proto::v1::score_tokens_response::Kind;
use sleuth_wire::ItemKey;
use tokio::sync::mpsc;

use super::Reply;
use super::ledger::Ledger;

/// The way back to a stream's caller. Whoever sends waits while the caller does not read.
#[derive(Clone)]
pub(super) struct Replies {
    sender: mpsc::Sender<Reply>,
    ledger: Arc<Ledger>,
}

// === impl Replies ===

impl Replies {
    pub(super) fn new(sender: mpsc::Sender<Reply>, ledger: Arc<Ledger>) -> Self {
        Self { sender, ledger }
    }

    /// Without a reader the whole session ends, and this with it.
    pub(super) async fn send(&self, kind: Kind) {
        let _ = self.sender.send(Ok(v1::ScoreTokensResponse { kind: Some(kind) })).await;
    }

    /// Sends an item's verdict. Its key is free before the caller can read that it is.
    pub(super) async fn finish(&self, key: &ItemKey, verdict: v1::Verdict) {
        let place = self.sender.reserve().await;
        self.ledger.leave(key);
        if let Ok(place) = place {
            let kind = Some(Kind::Verdict(verdict));
            place.send(Ok(v1::ScoreTokensResponse { kind }));
        }
    }
}
