use std::fmt;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::{FutureExt as _, Stream};
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::reward_service_server::RewardService;
use sleuth_service::{Caller, Tokenized};
use sleuth_wire::{Place, model_response, status, tokenize_response, utf8_text};
use tokio::sync::mpsc;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tonic::{Request, Response, Status, Streaming};

use crate::auth::Identity;
use crate::batch::{Call, score_batch};
use crate::observe::trace_of_call;
use crate::scoring::{Scoring, panicked};
use crate::session::{CorrectReply, CorrectSession, Reply, Session};
use crate::unoffered::not_offered;
use crate::{deadline, images};

/// `RewardService` over a scorer.
#[derive(Clone)]
pub(crate) struct Reward {
    scoring: Arc<Scoring>,
}

/// A stream's replies. Its call counts as open until they are read or dropped.
pub(crate) struct Replies<R> {
    queue: mpsc::Receiver<R>,
    _call: TaskTrackerToken,
}

// === impl Reward ===

impl Reward {
    pub(crate) fn new(scoring: Arc<Scoring>) -> Self {
        Self { scoring }
    }

    fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        let identity = request.extensions().get::<Identity>();
        let caller = self.scoring.caller(identity, request.metadata());
        caller.map_err(|f| status(&f, Place::Request))
    }

    async fn tokens(&self, request: v1::TokenizeRequest) -> Result<v1::TokenizeResponse, Failure> {
        self.scoring.scorer.model_of(&request.adapter).await?;
        let most = self.scoring.limits.max_response_bytes;
        if request.text.len() > most {
            let detail = format!("has {} bytes; at most {most}", request.text.len());
            let failure = Failure::new(ErrorClass::TooLarge, Reason::RESPONSE_TOO_LARGE, detail);
            return Err(failure.at("text"));
        }
        let text = utf8_text(request.text, Reason::RESPONSE_NOT_UTF8, "text")?;
        // A panic of the tokenizer library costs this call only.
        let work = async { self.scoring.scorer.tokenize(text).await };
        let work = AssertUnwindSafe(work).catch_unwind();
        let Tokenized { encoded, version } = work.await.unwrap_or_else(|_| Err(panicked()))?;
        Ok(tokenize_response(encoded, version))
    }
}

#[tonic::async_trait]
impl RewardService for Reward {
    type ScoreTokensStream = Replies<Reply>;
    type CorrectStream = Replies<CorrectReply>;

    async fn score_tokens(
        &self,
        request: Request<Streaming<v1::ScoreTokensRequest>>,
    ) -> Result<Response<Replies<Reply>>, Status> {
        let caller = self.caller(&request)?;
        let call = self.scoring.lifecycle.call();
        let (sender, queue) = mpsc::channel(self.scoring.stream.max_unread_replies.max(1));
        let trace = trace_of_call(request.metadata());
        let session = Session::new(Arc::clone(&self.scoring), caller, trace, sender.clone());
        let inbound = request.into_inner();
        tokio::spawn(async move {
            if AssertUnwindSafe(session.run(inbound)).catch_unwind().await.is_err() {
                // The reader may be gone; then nobody is left to tell.
                let _ = sender.send(Err(status(&panicked(), Place::Request))).await;
            }
        });
        Ok(Response::new(Replies { queue, _call: call }))
    }

    async fn score_batch(
        &self,
        request: Request<v1::ScoreBatchRequest>,
    ) -> Result<Response<v1::ScoreBatchResponse>, Status> {
        let _call = self.scoring.lifecycle.call();
        let caller = self.caller(&request)?;
        let call = Call {
            timeout: deadline::of_call(request.metadata()),
            trace: trace_of_call(request.metadata()),
        };
        let work = score_batch(&self.scoring, &caller, request.into_inner(), call);
        match AssertUnwindSafe(work).catch_unwind().await {
            Ok(outcome) => outcome.map(Response::new),
            Err(_) => Err(status(&panicked(), Place::Request)),
        }
    }

    async fn correct(
        &self,
        request: Request<Streaming<v1::CorrectRequest>>,
    ) -> Result<Response<Self::CorrectStream>, Status> {
        let corrections = self.scoring.scorer.corrects();
        let corrections = corrections.ok_or_else(|| not_offered("Correct"))?;
        let caller = self.caller(&request)?;
        let call = self.scoring.lifecycle.call();
        let (sender, queue) = mpsc::channel(self.scoring.stream.max_unread_replies.max(1));
        let scoring = Arc::clone(&self.scoring);
        let trace = trace_of_call(request.metadata());
        let session = CorrectSession::new(scoring, corrections, caller, trace, sender.clone());
        let inbound = request.into_inner();
        tokio::spawn(async move {
            if AssertUnwindSafe(session.run(inbound)).catch_unwind().await.is_err() {
                // The reader may be gone; then nobody is left to tell.
                let _ = sender.send(Err(status(&panicked(), Place::Request))).await;
            }
        });
        Ok(Response::new(Replies { queue, _call: call }))
    }

    async fn put_image(
        &self,
        request: Request<Streaming<v1::PutImageRequest>>,
    ) -> Result<Response<v1::PutImageResponse>, Status> {
        let caller = self.caller(&request)?;
        let _call = self.scoring.lifecycle.call();
        images::put(&self.scoring, &caller, request.into_inner()).await.map(Response::new)
    }

    async fn has_images(
        &self,
        request: Request<v1::HasImagesRequest>,
    ) -> Result<Response<v1::HasImagesResponse>, Status> {
        let caller = self.caller(&request)?;
        let asked = request.into_inner();
        let present = images::has(&self.scoring, &caller, &asked);
        present.map(Response::new).map_err(|f| status(&f, Place::Request))
    }

    async fn tokenize(
        &self,
        request: Request<v1::TokenizeRequest>,
    ) -> Result<Response<v1::TokenizeResponse>, Status> {
        let tokens = self.tokens(request.into_inner()).await;
        tokens.map(Response::new).map_err(|f| status(&f, Place::Request))
    }

    async fn get_model(
        &self,
        request: Request<v1::GetModelRequest>,
    ) -> Result<Response<v1::GetModelResponse>, Status> {
        let card = self.scoring.scorer.model_of(&request.get_ref().adapter).await;
        let card = card.map_err(|f| status(&f, Place::Request))?;
        let most = self.scoring.stream.max_unfinished_items;
        Ok(Response::new(model_response(&card, &self.scoring.limits, most)))
    }
}

// === impl Replies ===

impl<R> Stream for Replies<R> {
    type Item = R;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<R>> {
        self.queue.poll_recv(cx)
    }
}

impl<R> fmt::Debug for Replies<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replies").field("waiting", &self.queue.len()).finish_non_exhaustive()
    }
}
