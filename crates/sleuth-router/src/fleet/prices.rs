use sleuth_core::Load;

/// What items cost a replica, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prices {
    pub(crate) prefix: f64,
    pub(crate) response_token: f64,
}

// === impl Prices ===

impl Prices {
    pub(super) fn mean(loads: impl Iterator<Item = Load>) -> Option<Self> {
        let (mut n, mut prefix, mut response_token) = (0_u32, 0.0, 0.0);
        for load in loads.filter(|load| load.response_token_seconds > 0.0) {
            n += 1;
            prefix += load.prefix_seconds;
            response_token += load.response_token_seconds;
        }
        let n = f64::from(n);
        (n > 0.0).then(|| Self { prefix: prefix / n, response_token: response_token / n })
    }
}
