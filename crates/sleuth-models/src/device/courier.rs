use std::fmt::Debug;

use candle_core::{Device, Tensor};

use super::fault::fault;
use crate::backbone::PassError;

/// Brings tensors from one device to another.
pub trait Courier: Debug + Send + Sync {
    /// A copy of `tensor` on `to`, complete when this returns.
    fn carry(&self, tensor: &Tensor, to: &Device) -> Result<Tensor, PassError>;
}

/// By candle, through the host's memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct ThroughHost;

impl Courier for ThroughHost {
    fn carry(&self, tensor: &Tensor, to: &Device) -> Result<Tensor, PassError> {
        let values = tensor.to_device(&Device::Cpu).map_err(|e| fault(e, tensor.device()))?;
        let copy = values.to_device(to).map_err(|e| fault(e, to))?;
        to.synchronize().map_err(|e| fault(e, to))?;
        Ok(copy)
    }
}
