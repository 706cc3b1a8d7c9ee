use std::time::Duration;

/// How much a replica has to do, and what work costs it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Until all that waits and runs is done.
    pub queue: Duration,
    /// Items that wait or run.
    pub unfinished_items: usize,
    /// Bytes of keys and values in use.
    pub kv_used_bytes: u64,
    /// The most bytes of prefixes' keys and values.
    pub kv_limit_bytes: u64,
    /// Versions that answer, the default first.
    pub versions: Vec<String>,
    /// Seconds that the default version takes for a prefix that is not held.
    pub prefix_seconds: f64,
    /// Seconds that it takes for a token of a response.
    pub response_token_seconds: f64,
}

/// A prefix whose keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ResidentPrefix {
    /// [`prefix_digest`](crate::prefix_digest).
    pub digest: [u8; 32],
    /// Of image and prompt.
    pub positions: u32,
}

/// Prefixes that came and left since somebody was told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PrefixChanges {
    /// Those that came.
    pub added: Vec<ResidentPrefix>,
    /// Digests of those that left.
    pub removed: Vec<[u8; 32]>,
}

/// What a replica tells routers from time to time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// One more than in the report before; a gap means lost reports.
    pub sequence: u64,
    /// What there is to do.
    pub load: Load,
    /// Since the report before; all prefixes in the first.
    pub prefixes: PrefixChanges,
    /// Whether new items are refused, or soon will be.
    pub draining: bool,
}
