use std::fmt;
use std::sync::Arc;

/// Names a replica: an address or a pod's name. The same in every router, as it decides where a
/// prefix goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReplicaId(Arc<str>);

// === impl ReplicaId ===

impl ReplicaId {
    /// Takes the name as it is.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// FNV-1a: the same in every build and on every machine, which the standard hasher is not.
    pub(super) fn seed(&self) -> u64 {
        let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        self.0.as_bytes().iter().fold(0xcbf2_9ce4_8422_2325, step)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
