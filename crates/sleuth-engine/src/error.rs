use std::error::Error;
use std::io;
use std::time::Duration;

/// Why the engine gave no logits for an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// The queue has no room for the item.
    #[error("the queue is full")]
    QueueFull {
        /// When there should be room, from the measured throughput.
        retry_after: Duration,
    },
    /// The item's keys and values would never fit the engine's memory.
    #[error("the item is larger than the engine's memory for keys and values")]
    TooLarge,
    /// The model does not score items as they are generated.
    #[error("the model scores whole responses only")]
    NotIncremental,
    /// An earlier append of the item ended without a verdict.
    #[error("an earlier append was not finished; open the item again")]
    ItemLost,
    /// The engine takes no more work.
    #[error("the engine is shutting down")]
    Draining,
    /// The item's deadline passed before its logits were ready.
    #[error("the deadline passed")]
    Deadline,
    /// The model gave a logit that is NaN or infinite.
    #[error("the model gave a value that is not a finite number")]
    NotFinite,
    /// The model or its worker failed; the log says how.
    #[error("the device worker failed")]
    WorkerFailed,
}

/// Why an engine did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A setting that must be at least 1 is 0.
    #[error("engine setting `{0}` must be at least 1")]
    Setting(&'static str),
    /// The system gave no thread.
    #[error("the device thread could not be started")]
    Thread(#[source] io::Error),
    /// The model came without a worker.
    #[error("the model has no worker")]
    NoWorker,
    /// The model could not be built.
    #[error("the model could not be loaded")]
    Model(#[source] Box<dyn Error + Send + Sync>),
    /// Building the model panicked; standard error says where.
    #[error("loading the model panicked")]
    Panicked,
}
