use std::sync::Arc;
use std::time::{Duration, Instant};

use candle_core::Tensor;
use sleuth_core::Pixels;

use super::fault::fault;
use super::{DeviceFeatures, DeviceModel, DevicePrefix, DeviceSpace, DeviceSuffix};
use crate::backbone::{
    Backbone, BackboneFacts, Done, NewPrefix, PassCost, PassError, PassShape, PassTimes, Work,
};
use crate::paligemma::{KeyValues, pass_cost};

/// Keys and values have no pages here: a row takes what it needs.
const KV_PAGE_ROWS: usize = 1;

impl Backbone for DeviceModel {
    type Features = DeviceFeatures;
    type Prefix = DevicePrefix;
    type Suffix = DeviceSuffix;
    type Space = DeviceSpace;

    fn facts(&self) -> BackboneFacts {
        let config = self.backbone.config();
        BackboneFacts {
            device: if self.device().is_cuda() { "cuda" } else { "cpu" },
            image_tokens: config.vision_config.image_tokens(),
            attention: self.attention,
            batch_invariant: false,
            kv_page_rows: KV_PAGE_ROWS,
            kv_page_bytes: super::kv_bytes(config, KV_PAGE_ROWS, self.settings.kv),
            layers: config.text_config.num_hidden_layers,
            weight_bytes: self.weight_bytes,
        }
    }

    fn see(
        &self,
        _: &mut DeviceSpace,
        images: &[&Pixels],
    ) -> Result<Vec<DeviceFeatures>, PassError> {
        self.vision(images).map_err(|e| fault(e, self.device()))
    }

    fn score(
        &self,
        space: &mut DeviceSpace,
        work: Work<'_, DeviceFeatures, DevicePrefix, DeviceSuffix>,
    ) -> Result<Done<DevicePrefix, DeviceSuffix>, PassError> {
        let started = now();
        let shape = shape(&work, self.facts().image_tokens);
        let done = self.run(work).map_err(|e| fault(e, self.device()))?;
        space.times += self.share_out(&shape, started);
        Ok(done)
    }

    fn score_full(
        &self,
        space: &mut DeviceSpace,
        sequences: &[(NewPrefix<'_, DeviceFeatures>, &[u32])],
    ) -> Result<Vec<Vec<f32>>, PassError> {
        let started = now();
        let logits = self.run_full(sequences).map_err(|e| fault(e, self.device()))?;
        space.times.responses += started.elapsed();
        Ok(logits)
    }

    fn bring_prefix(&self, held: &Arc<DevicePrefix>) -> Result<Arc<DevicePrefix>, PassError> {
        if self.is_here(held.tensor()) {
            return Ok(Arc::clone(held));
        }
        let kv = self.courier.carry(held.tensor(), self.device())?;
        Ok(Arc::new(DevicePrefix::from_tensor(kv).map_err(|e| fault(e, self.device()))?))
    }

    fn bring_features(&self, held: &Arc<DeviceFeatures>) -> Result<Arc<DeviceFeatures>, PassError> {
        if self.is_here(&held.0) {
            return Ok(Arc::clone(held));
        }
        Ok(Arc::new(DeviceFeatures(self.courier.carry(&held.0, self.device())?)))
    }

    fn can_read(&self, kept: &DeviceSuffix) -> bool {
        self.is_here(kept.prefix.tensor())
    }

    fn bring_suffix(
        &self,
        kept: DeviceSuffix,
        prefix: Arc<DevicePrefix>,
    ) -> Result<DeviceSuffix, PassError> {
        let carry = |tensor: &Tensor| self.courier.carry(tensor, self.device());
        let layers = kept
            .layers
            .iter()
            .map(|kv| Ok(KeyValues { key: carry(&kv.key)?, value: carry(&kv.value)? }))
            .collect::<Result<_, PassError>>()?;
        Ok(DeviceSuffix { prefix, layers, rows: kept.rows })
    }

    fn cost(&self, shape: &PassShape) -> PassCost {
        pass_cost(self.backbone.config(), shape)
    }

    fn take_times(space: &mut DeviceSpace) -> PassTimes {
        std::mem::take(&mut space.times)
    }

    fn space_bytes(_: &DeviceSpace) -> u64 {
        0
    }
}

impl DeviceModel {
    fn is_here(&self, tensor: &Tensor) -> bool {
        tensor.device().same_device(self.device())
    }

    /// The time since `started`, as far as known: the device runs prefixes and responses at once,
    /// so it is shared out by what each costs.
    fn share_out(&self, shape: &PassShape, started: Instant) -> PassTimes {
        let took = started.elapsed();
        let prefixes = PassShape { prefixes: shape.prefixes.clone(), ..PassShape::default() };
        let (prefixes, all) = (self.cost(&prefixes).total(), self.cost(shape).total());
        let share = if all > 0.0 { prefixes / all } else { 0.0 };
        let prefixes = took.mul_f64(share.clamp(0.0, 1.0));
        PassTimes { prefixes, responses: took.saturating_sub(prefixes), head: Duration::ZERO }
    }
}

fn shape(work: &Work<'_, DeviceFeatures, DevicePrefix, DeviceSuffix>, image: usize) -> PassShape {
    PassShape::of(work, 0, image)
}

#[expect(clippy::disallowed_methods, reason = "a device's threads have no tokio clock")]
fn now() -> Instant {
    Instant::now()
}
