use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use sleuth_core::{Context, Failure, ModelCard, Pixels, Scored};
use sleuth_engine::{Reservation, Submission};
use tokio::time::Instant;

use super::EncodedImage;
use crate::item::Item;
use crate::score::{Inner, Run};
use crate::{BoxFuture, Caller, ScoreService, Scorer, check, failures};

/// A scorer whose verdicts can be corrected.
pub trait Correctable: Scorer {
    /// Resolves an item's image, prompt and version. Nothing is decoded or scored.
    fn rescorer<'a>(
        &'a self,
        caller: &'a Caller,
        context: Context<Bytes>,
    ) -> BoxFuture<'a, Result<Box<dyn Rescorer>, Failure>>;
}

/// Scores responses to one image and prompt on one version of the model, which it holds.
pub trait Rescorer: Send + Sync {
    /// The version.
    fn card(&self) -> &ModelCard;

    /// What a corrector is shown.
    fn sight(&self) -> BoxFuture<'_, Result<Sight, Failure>>;

    /// Scores responses together: they run in one batch as far as one has room for them. Results
    /// have the order of the responses; one that cannot be scored costs the others nothing.
    /// Dropping the future gives all of them up.
    fn score(
        &self,
        responses: Vec<String>,
        deadline: Option<Instant>,
    ) -> BoxFuture<'_, Vec<Result<Scored, Failure>>>;
}

/// An item's image and prompt.
#[derive(Clone, Debug)]
pub struct Sight {
    /// The file.
    pub image: EncodedImage,
    /// As the vision tower takes it.
    pub pixels: Pixels,
    /// Names `pixels` in the engine's caches.
    pub image_key: [u8; 32],
    /// What was asked.
    pub prompt: String,
}

struct ItemRescorer {
    shared: Arc<Inner>,
    item: Item,
}

/// A response that is in the queue.
struct Queued {
    at: usize,
    response: String,
    run: Run,
}

// === impl ScoreService ===

impl Correctable for ScoreService {
    fn rescorer<'a>(
        &'a self,
        caller: &'a Caller,
        context: Context<Bytes>,
    ) -> BoxFuture<'a, Result<Box<dyn Rescorer>, Failure>> {
        Box::pin(async move {
            let item = self.shared.item(caller, &context).await?;
            let shared = Arc::clone(&self.shared);
            Ok(Box::new(ItemRescorer { shared, item }) as Box<dyn Rescorer>)
        })
    }
}

// === impl ItemRescorer ===

impl Rescorer for ItemRescorer {
    fn card(&self) -> &ModelCard {
        self.item.model.card()
    }

    fn sight(&self) -> BoxFuture<'_, Result<Sight, Failure>> {
        Box::pin(async {
            let blake3 = self.item.image.digest;
            let data = match &self.item.image.data {
                Some(data) => data.clone(),
                None => self.shared.images.get(&self.item.caller, blake3)?,
            };
            let image_key = self.item.model.prepare.image_key(&blake3);
            let (pixels, _flight) = self.shared.pixels(&self.item, image_key).await?;
            let image = EncodedImage { data, blake3 };
            Ok(Sight { image, pixels, image_key, prompt: self.item.prompt.clone() })
        })
    }

    fn score(
        &self,
        responses: Vec<String>,
        deadline: Option<Instant>,
    ) -> BoxFuture<'_, Vec<Result<Scored, Failure>>> {
        Box::pin(self.score_together(responses, deadline))
    }
}

impl ItemRescorer {
    async fn score_together(
        &self,
        responses: Vec<String>,
        deadline: Option<Instant>,
    ) -> Vec<Result<Scored, Failure>> {
        let received = Instant::now();
        let all = responses.len();
        let _presences: Vec<_> =
            responses.iter().map(|_| self.shared.admission.enter(&self.item.caller)).collect();
        let mut results: Vec<Option<Result<Scored, Failure>>> = Vec::new();
        let mut work: Vec<(Reservation, _)> = Vec::with_capacity(all);
        let mut queued = Vec::with_capacity(all);
        let prepared = join_all(responses.into_iter().map(|response| async move {
            check::response(&response)?;
            self.shared.prepare(&self.item, response).await
        }));
        for (at, ready) in prepared.await.into_iter().enumerate() {
            match ready {
                Err(failure) => results.push(Some(Err(failure))),
                Ok((response, ready)) => {
                    let (reservation, prepared, run) = ready.split();
                    work.push((reservation, prepared));
                    queued.push(Queued { at, response, run });
                    results.push(None);
                }
            }
        }
        let prepare = received.elapsed();
        let submissions: Vec<Submission> = Reservation::submit_together(work, deadline);
        let scored = join_all(submissions).await;
        for (Queued { at, response, run }, scores) in queued.into_iter().zip(scored) {
            let verdict = scores
                .map_err(failures::from_engine)
                .and_then(|scores| run.verdict(&self.item, &response, scores, prepare));
            if let Some(result) = results.get_mut(at) {
                *result = Some(verdict);
            }
        }
        results.into_iter().map(|r| r.unwrap_or_else(|| Err(failures::worker_failed()))).collect()
    }
}
