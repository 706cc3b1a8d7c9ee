use serde::{Deserialize, Serialize};

/// What bends the values in an MLP, by transformers' names in `hidden_act`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    #[serde(rename = "silu", alias = "swish")]
    Silu,
    /// `x · Φ(x)`, by the error function.
    #[serde(rename = "gelu")]
    Gelu,
    /// The tanh form of GELU.
    #[serde(rename = "gelu_pytorch_tanh", alias = "gelu_new")]
    GeluTanh,
}
