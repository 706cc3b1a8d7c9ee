use http::Method;

use crate::auth::{Access, READ, SCORE};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// `OpenRLHF`'s reward server.
    GetReward,
    /// vLLM's `/pooling`: a value per token.
    Pooling,
    /// vLLM's `/classify`: a value per response.
    Classify,
    Models,
    Health,
}

// === impl Route ===

impl Route {
    pub(super) fn of(path: &str) -> Option<Self> {
        match path {
            "/get_reward" => Some(Self::GetReward),
            "/pooling" | "/v1/pooling" => Some(Self::Pooling),
            "/classify" | "/v1/classify" => Some(Self::Classify),
            "/v1/models" => Some(Self::Models),
            "/health" => Some(Self::Health),
            _ => None,
        }
    }

    /// A metric's label, and a part of idempotency keys.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::GetReward => "get_reward",
            Self::Pooling => "pooling",
            Self::Classify => "classify",
            Self::Models => "models",
            Self::Health => "health",
        }
    }

    pub(super) const fn method(self) -> Method {
        match self {
            Self::GetReward | Self::Pooling | Self::Classify => Method::POST,
            Self::Models | Self::Health => Method::GET,
        }
    }

    /// The method as the `allow` header has it.
    pub(super) const fn allow(self) -> &'static str {
        match self {
            Self::GetReward | Self::Pooling | Self::Classify => "POST",
            Self::Models | Self::Health => "GET",
        }
    }

    pub(super) const fn access(self) -> Access {
        match self {
            Self::GetReward | Self::Pooling | Self::Classify => SCORE,
            Self::Models => READ,
            // It says whether the server serves, and nothing else.
            Self::Health => Access::Open,
        }
    }
}
