use std::sync::Arc;

use candle_core::{Result, Tensor};

use crate::backbone::{Continued, Held, Prefilled};
use crate::paligemma::KeyValues;

/// SigLIP's output for one image, before the projector: `[image tokens, vision hidden]`, f32.
#[derive(Debug)]
pub struct DeviceFeatures(pub(super) Tensor);

/// Keys and values of one prefix, `[layers, 2, kv_heads, rows, head_dim]`: one piece of memory, so
/// that it is copied to another device at once.
#[derive(Debug)]
pub struct DevicePrefix {
    kv: Tensor,
}

/// Keys and values of a response that goes on, and its prefix.
#[derive(Debug)]
pub struct DeviceSuffix {
    pub(super) prefix: Arc<DevicePrefix>,
    /// Of each layer; none where it has no tokens yet.
    pub(super) layers: Vec<KeyValues>,
    pub(super) rows: usize,
}

// === impl DevicePrefix ===

impl DevicePrefix {
    /// From each layer's keys and values.
    pub(super) fn new(layers: &[KeyValues]) -> Result<Self> {
        let layers = layers
            .iter()
            .map(|kv| Tensor::stack(&[&kv.key, &kv.value], 0))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { kv: Tensor::stack(&layers, 0)? })
    }

    /// The same numbers in other memory.
    pub fn from_tensor(kv: Tensor) -> Result<Self> {
        kv.dims5()?;
        Ok(Self { kv })
    }

    /// `[layers, 2, kv_heads, rows, head_dim]`.
    pub fn tensor(&self) -> &Tensor {
        &self.kv
    }

    pub(super) fn layer(&self, depth: usize) -> Result<KeyValues> {
        let layer = self.kv.get(depth)?;
        Ok(KeyValues { key: layer.get(0)?, value: layer.get(1)? })
    }
}

impl Held for DeviceFeatures {
    fn bytes(&self) -> u64 {
        bytes(&self.0)
    }
}

impl Held for DevicePrefix {
    fn bytes(&self) -> u64 {
        bytes(&self.kv)
    }
}

impl Prefilled for DevicePrefix {
    fn rows(&self) -> usize {
        self.kv.dims()[3]
    }
}

impl Held for DeviceSuffix {
    fn bytes(&self) -> u64 {
        self.layers.iter().map(|kv| bytes(&kv.key) + bytes(&kv.value)).sum()
    }
}

impl Continued<DevicePrefix> for DeviceSuffix {
    fn prefix(&self) -> &Arc<DevicePrefix> {
        &self.prefix
    }

    fn rows(&self) -> usize {
        self.rows
    }
}

fn bytes(tensor: &Tensor) -> u64 {
    (tensor.elem_count() * tensor.dtype().size_in_bytes()) as u64
}
