//! Fused f32 kernels that candle lacks or that cut its autograd graph (`candle-nn`'s fused
//! softmax and norms have no backward pass).
//!
//! On the CPU each runs over rows in parallel, in a fixed order within a row, with our own `exp`,
//! `tanh` and `erf`, so that a vectorised body and its scalar tail give the same bits. On other devices
//! they fall back to candle's primitive operations.
#![expect(
    clippy::inline_always,
    reason = "only what is inlined into the dispatched closure is compiled for the CPU's vectors"
)]

mod activation;
mod attention_softmax;
mod elementary;
mod low_rank;
mod norm;
mod packed_attention;
mod rope;
mod rows;

pub(crate) use activation::{gelu, gelu_erf, silu};
pub use activation::{gelu_tanh, gelu_tanh_times};
pub(crate) use attention_softmax::row_max;
pub use attention_softmax::{RowKeys, attention_softmax};
pub(crate) use elementary::exp;
pub use low_rank::{Dropout, low_rank_linear};
pub use norm::{layer_norm, rms_norm};
pub use packed_attention::{HeadShape, Segment, packed_attention};
pub use rope::{RopeTable, rope, rope_frequencies};
pub(crate) use rows::lane_sum;
