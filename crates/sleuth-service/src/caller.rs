use std::sync::Arc;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Caller {
    /// Who shares the server with others; quotas, images and idempotency keys are a tenant's own.
    pub tenant: Arc<str>,
}

// === impl Caller ===

impl Caller {
    /// A caller of a tenant; of the nameless one for an empty name.
    pub fn new(tenant: &str) -> Self {
        Self { tenant: Arc::from(tenant) }
    }
}

impl Default for Caller {
    fn default() -> Self {
        Self::new("")
    }
}
