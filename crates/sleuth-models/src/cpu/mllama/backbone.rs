use sleuth_core::Pixels;

use super::MllamaCpu;
use crate::SuffixAttention;
use crate::backbone::{
    Backbone, BackboneFacts, Done, Held, NewPrefix, PassCost, PassError, PassShape, PassTimes, Work,
};
use crate::cpu::kv::ImageKv;
use crate::cpu::{PrefixKv, SuffixKv, Workspace};

impl Backbone for MllamaCpu {
    type Features = ImageKv;
    type Prefix = PrefixKv;
    type Suffix = SuffixKv;
    type Space = Workspace;

    fn facts(&self) -> BackboneFacts {
        BackboneFacts {
            device: "cpu",
            // An image stands beside the text: a prefix is its prompt.
            image_tokens: 0,
            attention: SuffixAttention::Causal,
            batch_invariant: true,
            kv_page_rows: Self::KV_PAGE_ROWS,
            kv_page_bytes: self.kv_bytes(Self::KV_PAGE_ROWS),
            layers: self.config().text_config.self_attention_layers(),
            weight_bytes: self.weight_bytes(),
        }
    }

    fn check(&self, pixels: &Pixels, prompt: &[u32]) -> Result<(), PassError> {
        self.tiles(pixels)?;
        self.check_prompt(prompt)
    }

    fn see(&self, space: &mut Workspace, images: &[&Pixels]) -> Result<Vec<ImageKv>, PassError> {
        self.see(space, images)
    }

    fn score(&self, space: &mut Workspace, work: Work<'_, ImageKv>) -> Result<Done, PassError> {
        self.score(space, work)
    }

    /// Llama's decoder is causal throughout, so no model of it was trained otherwise.
    fn score_full(
        &self,
        _: &mut Workspace,
        _: &[(NewPrefix<'_, ImageKv>, &[u32])],
    ) -> Result<Vec<Vec<f32>>, PassError> {
        Err(PassError::FullAttention)
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

impl Held for ImageKv {
    fn bytes(&self) -> u64 {
        self.bytes()
    }
}
