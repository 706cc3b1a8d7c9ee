use sleuth_core::Prepared;

/// A loaded reward model on one device. Owned by one thread.
pub trait RewardModel: Send + 'static {
    /// Scores a batch: for each item one finite logit per response token, in order.
    ///
    /// One item's failure does not touch the others. The result has as many entries as `batch`.
    fn score(&mut self, batch: &[Prepared]) -> Vec<Result<Vec<f32>, ModelFailure>>;

    /// Rows of the image part of a prefix, for budgets.
    fn image_tokens(&self) -> usize;

    /// Whether the same bits come back whatever shares the batch.
    fn batch_invariant(&self) -> bool;
}

/// Why a model gave no logits for an item.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelFailure {
    /// A logit was NaN or infinite.
    #[error("the model gave a value that is not a finite number")]
    NotFinite,
    /// The tensor library refused; for logs, not for callers.
    #[error("the forward pass failed: {0}")]
    Forward(String),
}
