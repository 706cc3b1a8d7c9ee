use std::time::Duration;

use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_engine::EngineError;

/// What an engine's error means for the caller. The only place that says so.
pub(crate) fn from_engine(error: EngineError) -> Failure {
    match error {
        EngineError::QueueFull { retry_after } => queue_full(retry_after),
        EngineError::Draining => Failure::new(
            ErrorClass::Draining,
            Reason::SERVER_DRAINING,
            "the server is shutting down; send the item to another",
        ),
        EngineError::Deadline => deadline(),
        EngineError::TooLarge => Failure::new(
            ErrorClass::TooLarge,
            Reason::ITEM_TOO_LARGE,
            "the item does not fit the server's memory for keys and values",
        ),
        EngineError::NotIncremental => Failure::new(
            ErrorClass::Unsupported,
            Reason::NOT_OFFERED,
            "the model scores whole responses only; send the item whole",
        ),
        EngineError::ItemLost => Failure::new(
            ErrorClass::Cancelled,
            Reason::ITEM_LOST,
            "an earlier append was not finished; open the item again",
        ),
        EngineError::NotFinite => not_finite(),
        EngineError::WorkerFailed => worker_failed(),
    }
}

pub(crate) fn queue_full(retry_after: Duration) -> Failure {
    Failure::new(
        ErrorClass::Overload,
        Reason::QUEUE_FULL,
        "the queue is full; try again after the given time",
    )
    .retry_after(retry_after)
}

pub(crate) fn slow_image(limit: Duration) -> Failure {
    let detail = format!("the image took longer than {} ms to decode", limit.as_millis());
    Failure::new(ErrorClass::Deadline, Reason::IMAGE_SLOW, detail).at("context.image")
}

pub(crate) fn no_image() -> Failure {
    Failure::new(ErrorClass::InvalidRequest, Reason::IMAGE_MISSING, "an item needs an image")
        .at("context.image")
}

pub(crate) fn deadline() -> Failure {
    Failure::new(
        ErrorClass::Deadline,
        Reason::DEADLINE_PASSED,
        "the item's time ran out before its rewards were ready",
    )
}

pub(crate) fn not_finite() -> Failure {
    Failure::new(
        ErrorClass::ModelFailure,
        Reason::NOT_FINITE,
        "the model gave a value that is not a finite number",
    )
}

pub(crate) fn worker_failed() -> Failure {
    Failure::new(
        ErrorClass::ModelFailure,
        Reason::WORKER_FAILED,
        "the server failed on this item; its log says how",
    )
}

pub(crate) fn no_adapter() -> Failure {
    let detail = "no adapter of that name is loaded";
    Failure::new(ErrorClass::Unknown, Reason::ADAPTER_UNKNOWN, detail).at("adapter")
}
