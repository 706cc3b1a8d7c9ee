use std::time::Instant;

/// The engine's clock. Work crosses from async callers to a device thread, so both sides must read
/// the same one; deadlines given in tokio's time are kept by the callers' own timers.
#[expect(
    clippy::disallowed_methods,
    reason = "a device thread has no tokio clock, and a batch takes real time in any test"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}
