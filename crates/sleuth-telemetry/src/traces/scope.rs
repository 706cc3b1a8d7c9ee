use std::future::Future;

use super::ItemTrace;

tokio::task_local! {
    static ITEM: ItemTrace;
}

/// The item that the running task works on; one that records nothing where there is none.
pub fn current() -> ItemTrace {
    ITEM.try_with(ItemTrace::clone).unwrap_or_default()
}

/// Runs a future on behalf of an item. What it spawns must be told again.
pub fn within<F: Future>(item: ItemTrace, future: F) -> impl Future<Output = F::Output> {
    ITEM.scope(item, future)
}
