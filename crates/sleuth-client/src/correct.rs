use bytes::Bytes;
use sleuth_core::CorrectRequest;
use sleuth_proto::v1;
use sleuth_proto::v1::correct_request::Kind;
use sleuth_wire::{
    CorrectReply, Finished, Trace, Unreadable, correct_reply, encode_correct_item, encode_trace,
};
use tonic::Streaming;

use crate::{Client, ClientError};

/// An item that is corrected, over a stream of its own. Dropping it gives the item up.
#[derive(Debug)]
pub struct Correcting {
    replies: Streaming<v1::CorrectResponse>,
}

// === impl Client ===

impl Client {
    /// Begins to correct an item. Nothing is tried again.
    pub async fn correct(&self, request: CorrectRequest<Bytes>) -> Result<Correcting, ClientError> {
        self.correct_traced(request, None).await
    }

    /// As [`Client::correct`], within a trace.
    pub async fn correct_traced(
        &self,
        request: CorrectRequest<Bytes>,
        trace: Option<Trace>,
    ) -> Result<Correcting, ClientError> {
        let key = v1::Key { item_id: "0".to_owned(), attempt: 1 };
        let mut item = encode_correct_item(Some(key), request);
        let context = item.item.as_mut().and_then(|item| item.context.as_mut());
        if let (Some(context), Some(trace)) = (context, trace) {
            (context.traceparent, context.tracestate) = encode_trace(&trace);
        }
        let kind = Some(Kind::Item(item));
        let mut service = self.service();
        let only = tokio_stream::iter([v1::CorrectRequest { kind }]);
        Ok(Correcting { replies: service.correct(only).await?.into_inner() })
    }
}

// === impl Correcting ===

impl Correcting {
    /// What happens next; `None` after the end.
    pub async fn next(&mut self) -> Result<Option<CorrectReply>, ClientError> {
        while let Some(message) = self.replies.message().await? {
            let kind = message.kind.ok_or(Unreadable::Missing("kind"))?;
            if let Some(reply) = correct_reply(kind)? {
                return Ok(Some(reply));
            }
        }
        Ok(None)
    }

    /// Waits for the end, whatever happens before it.
    pub async fn finished(mut self) -> Result<Finished, ClientError> {
        while let Some(reply) = self.next().await? {
            if let CorrectReply::Final(finished) = reply {
                return Ok(*finished);
            }
        }
        Err(ClientError::StreamEnded(None))
    }
}
