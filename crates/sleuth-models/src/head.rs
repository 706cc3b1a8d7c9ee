use std::path::Path;

use candle_core::{DType, Device, Tensor};

use crate::LoadError;
use crate::checkpoint::Adapter;

/// TLDR's head: one shared linear layer from a token's state to its logit (Eq. 6), in f32.
#[derive(Clone, Debug)]
pub struct RewardHead {
    /// `[1, hidden]`.
    weight: Tensor,
    /// `[1]`.
    bias: Tensor,
}

// === impl RewardHead ===

impl RewardHead {
    /// The file's name in a model folder.
    pub const FILE: &'static str = "reward_head.safetensors";

    /// From `score.weight` `[1, hidden]` and `score.bias` `[1]`.
    pub fn new(weight: Tensor, bias: Tensor) -> Self {
        Self { weight, bias }
    }

    /// The adapter's own head, else the folder's.
    pub fn open(
        folder: &Path,
        adapter: Option<&Adapter>,
        hidden: usize,
        device: &Device,
    ) -> Result<Self, LoadError> {
        if let Some(adapter) = adapter
            && let (Some(weight), Some(bias)) =
                (adapter.saved("score.weight"), adapter.saved("score.bias"))
        {
            return Self::checked(weight, bias, hidden, device);
        }
        let path = folder.join(Self::FILE);
        if !path.exists() {
            return Err(LoadError::NoHead);
        }
        let tensors = candle_core::safetensors::load(&path, device)
            .map_err(|e| LoadError::malformed(&path, e))?;
        let get = |name: &str| {
            tensors.get(name).ok_or_else(|| LoadError::MissingTensor { name: name.to_owned() })
        };
        Self::checked(get("score.weight")?, get("score.bias")?, hidden, device)
    }

    fn checked(
        weight: &Tensor,
        bias: &Tensor,
        hidden: usize,
        device: &Device,
    ) -> Result<Self, LoadError> {
        for (name, tensor, shape) in
            [("score.weight", weight, vec![1, hidden]), ("score.bias", bias, vec![1])]
        {
            if tensor.dims() != shape {
                return Err(LoadError::Shape {
                    name: name.to_owned(),
                    expected: shape,
                    found: tensor.dims().to_vec(),
                });
            }
        }
        let convert = |t: &Tensor| t.to_dtype(DType::F32)?.to_device(device);
        let head = Self { weight: convert(weight)?, bias: convert(bias)? };
        let all = head.weight.flatten_all()?.to_vec1::<f32>()?;
        if all.iter().chain(&head.bias.to_vec1::<f32>()?).any(|x| !x.is_finite()) {
            return Err(LoadError::NotFinite { name: "score".to_owned() });
        }
        Ok(head)
    }

    /// The same head there.
    pub(crate) fn to_device(&self, device: &Device) -> candle_core::Result<Self> {
        let (weight, bias) = (self.weight.to_device(device)?, self.bias.to_device(device)?);
        Ok(Self { weight, bias })
    }

    /// Weight `[hidden]` and bias.
    pub(crate) fn values(&self) -> candle_core::Result<(Vec<f32>, f32)> {
        Ok((self.weight.flatten_all()?.to_vec1()?, self.bias.to_vec1::<f32>()?[0]))
    }

    /// States `[rows, hidden]` to logits `[rows]`.
    pub fn forward(&self, states: &Tensor) -> candle_core::Result<Tensor> {
        states.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)?.squeeze(1)
    }
}
