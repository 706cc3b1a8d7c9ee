use std::sync::Arc;

use sleuth_core::Pixels;

use super::{CpuModel, ImageFeatures, PrefixKv, SuffixKv, Workspace};
use crate::backbone::{
    Backbone, BackboneFacts, Continued, Done, Held, NewPrefix, PassCost, PassError, PassShape,
    PassTimes, Prefilled, Work,
};

impl Backbone for CpuModel {
    type Features = ImageFeatures;
    type Prefix = PrefixKv;
    type Suffix = SuffixKv;
    type Space = Workspace;

    fn facts(&self) -> BackboneFacts {
        BackboneFacts {
            device: "cpu",
            image_tokens: self.image_tokens(),
            attention: self.attention(),
            batch_invariant: true,
            kv_page_rows: Self::KV_PAGE_ROWS,
            kv_page_bytes: self.kv_bytes(Self::KV_PAGE_ROWS),
            layers: self.config().text_config.num_hidden_layers,
            weight_bytes: self.weight_bytes(),
        }
    }

    fn see(
        &self,
        space: &mut Workspace,
        images: &[&Pixels],
    ) -> Result<Vec<ImageFeatures>, PassError> {
        Ok(self.see(space, images))
    }

    fn score(&self, space: &mut Workspace, work: Work<'_>) -> Result<Done, PassError> {
        Ok(self.score(space, work)?)
    }

    fn score_full(
        &self,
        space: &mut Workspace,
        sequences: &[(NewPrefix<'_>, &[u32])],
    ) -> Result<Vec<Vec<f32>>, PassError> {
        Ok(self.score_full(space, sequences)?)
    }

    fn cost(&self, shape: &PassShape) -> PassCost {
        self.cost(shape)
    }

    fn take_times(space: &mut Workspace) -> PassTimes {
        space.take_times()
    }

    fn space_bytes(space: &Workspace) -> u64 {
        space.bytes()
    }
}

impl Held for ImageFeatures {
    fn bytes(&self) -> u64 {
        self.bytes()
    }
}

impl Held for PrefixKv {
    fn bytes(&self) -> u64 {
        self.bytes()
    }
}

impl Prefilled for PrefixKv {
    fn rows(&self) -> usize {
        self.rows()
    }
}

impl Held for SuffixKv {
    fn bytes(&self) -> u64 {
        self.bytes()
    }
}

impl Continued<PrefixKv> for SuffixKv {
    fn prefix(&self) -> &Arc<PrefixKv> {
        self.prefix()
    }

    fn rows(&self) -> usize {
        self.rows()
    }
}
