use std::time::{Duration, Instant};

use sleuth_core::Pixels;

use super::{DeviceFeatures, DeviceModel, DevicePrefix, DeviceSpace, DeviceSuffix};
use crate::LoadError;
use crate::backbone::{
    Backbone, BackboneFacts, Done, NewPrefix, PassCost, PassError, PassShape, PassTimes, Work,
};
use crate::paligemma::pass_cost;

/// Keys and values have no pages here: a row takes what it needs.
const KV_PAGE_ROWS: usize = 1;

impl Backbone for DeviceModel {
    type Features = DeviceFeatures;
    type Prefix = DevicePrefix;
    type Suffix = DeviceSuffix;
    type Space = DeviceSpace;

    fn facts(&self) -> BackboneFacts {
        let config = self.backbone.config();
        let text = &config.text_config;
        let row = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim;
        BackboneFacts {
            device: if self.device().is_cuda() { "cuda" } else { "cpu" },
            image_tokens: config.vision_config.image_tokens(),
            attention: self.attention,
            batch_invariant: false,
            kv_page_rows: KV_PAGE_ROWS,
            kv_page_bytes: (row * self.settings.kv.bytes()) as u64,
            layers: text.num_hidden_layers,
            weight_bytes: self.weight_bytes,
        }
    }

    fn see(
        &self,
        _: &mut DeviceSpace,
        images: &[&Pixels],
    ) -> Result<Vec<DeviceFeatures>, PassError> {
        self.vision(images).map_err(fault)
    }

    fn score(
        &self,
        space: &mut DeviceSpace,
        work: Work<'_, DeviceFeatures, DevicePrefix, DeviceSuffix>,
    ) -> Result<Done<DevicePrefix, DeviceSuffix>, PassError> {
        let started = now();
        let shape = shape(&work, self.facts().image_tokens);
        let done = self.run(work).map_err(fault)?;
        space.times += self.share_out(&shape, started);
        Ok(done)
    }

    fn score_full(
        &self,
        space: &mut DeviceSpace,
        sequences: &[(NewPrefix<'_, DeviceFeatures>, &[u32])],
    ) -> Result<Vec<Vec<f32>>, PassError> {
        let started = now();
        let logits = self.run_full(sequences).map_err(fault)?;
        space.times.responses += started.elapsed();
        Ok(logits)
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

/// What a failed operation says of the device.
fn fault(error: candle_core::Error) -> PassError {
    PassError::Failed(LoadError::Tensor(error))
}

#[expect(clippy::disallowed_methods, reason = "a device's threads have no tokio clock")]
fn now() -> Instant {
    Instant::now()
}
