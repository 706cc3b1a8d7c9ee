use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;

use candle_core::{Device, Tensor};
use sleuth_core::{Pixels, Prepared};
use sleuth_models::paligemma::{Group, Prefix};
use sleuth_models::{LoadError, LoadOptions, RewardPaliGemma};

use crate::{ModelFailure, RewardModel};

/// PaliGemma as a device's model: groups a batch by image and prompt, so that each image is seen
/// once and each prefix computed once, and scores all responses in one packed pass.
#[derive(Debug)]
pub struct PaliGemmaDevice {
    model: RewardPaliGemma,
}

/// Items that share an image and a prompt, by their place in the batch.
struct Shared {
    image: usize,
    items: Vec<usize>,
}

// === impl PaliGemmaDevice ===

impl PaliGemmaDevice {
    /// Loads a model folder on the CPU.
    pub fn open(folder: &Path, options: &LoadOptions) -> Result<Self, LoadError> {
        Ok(Self { model: RewardPaliGemma::open(folder, options, &Device::Cpu)? })
    }

    /// The model.
    pub fn model(&self) -> &RewardPaliGemma {
        &self.model
    }

    fn forward(&self, batch: &[Prepared]) -> candle_core::Result<Vec<Vec<f32>>> {
        let (firsts, shared) = group(batch);
        // One image at a time: the vision tower's scores are its largest tensor by far.
        let rows = firsts
            .iter()
            .map(|&item| self.image_rows(&batch[item].pixels))
            .collect::<candle_core::Result<Vec<_>>>()?;
        let groups: Vec<Group<'_>> = shared
            .iter()
            .map(|shared| Group {
                prefix: Prefix::New {
                    image: &rows[shared.image],
                    prompt: &batch[shared.items[0]].prompt,
                },
                responses: shared.items.iter().map(|&item| &*batch[item].response).collect(),
            })
            .collect();
        let scored = self.model.score(&groups)?;
        let order = shared.iter().flat_map(|shared| &shared.items);
        let mut logits = vec![Vec::new(); batch.len()];
        for (&item, own) in order.zip(scored) {
            logits[item] = own;
        }
        Ok(logits)
    }

    fn image_rows(&self, pixels: &Pixels) -> candle_core::Result<Tensor> {
        let shape = (1, 3, pixels.height() as usize, pixels.width() as usize);
        let pixels = Tensor::from_slice(pixels.values(), shape, &Device::Cpu)?
            .to_device(self.model.backbone().device())?;
        let mut rows = self.model.image_rows(&pixels)?;
        Ok(rows.swap_remove(0))
    }
}

impl RewardModel for PaliGemmaDevice {
    fn score(&mut self, batch: &[Prepared]) -> Vec<Result<Vec<f32>, ModelFailure>> {
        match self.forward(batch) {
            Ok(logits) => logits.into_iter().map(finite).collect(),
            Err(e) => vec![Err(ModelFailure::Forward(e.to_string())); batch.len()],
        }
    }

    fn image_tokens(&self) -> usize {
        self.model.backbone().config().vision_config.image_tokens()
    }

    /// Not promised yet: the matrix products block by the batch's shape.
    fn batch_invariant(&self) -> bool {
        false
    }
}

/// The first item of each distinct image, and the groups, both in order of arrival.
fn group(batch: &[Prepared]) -> (Vec<usize>, Vec<Shared>) {
    let mut images: HashMap<[u8; 32], usize> = HashMap::new();
    let mut places = HashMap::new();
    let mut firsts = Vec::new();
    let mut shared: Vec<Shared> = Vec::new();
    for (item, prepared) in batch.iter().enumerate() {
        let image = *images.entry(prepared.image_key).or_insert_with(|| {
            firsts.push(item);
            firsts.len() - 1
        });
        match places.entry((image, &prepared.prompt)) {
            Entry::Occupied(place) => {
                let place: usize = *place.get();
                shared[place].items.push(item);
            }
            Entry::Vacant(place) => {
                place.insert(shared.len());
                shared.push(Shared { image, items: vec![item] });
            }
        }
    }
    (firsts, shared)
}

fn finite(logits: Vec<f32>) -> Result<Vec<f32>, ModelFailure> {
    if logits.iter().all(|x| x.is_finite()) { Ok(logits) } else { Err(ModelFailure::NotFinite) }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn item(shade: f32, prompt: &[u32], response: &[u32]) -> Prepared {
        Prepared {
            pixels: Pixels::try_new(28, 28, vec![shade; 3 * 28 * 28].into()).unwrap(),
            image_key: [(shade * 10.0) as u8; 32],
            prompt: Arc::from(prompt),
            response: Arc::from(response),
        }
    }

    #[test]
    fn items_of_mixed_groups_get_the_scores_they_get_alone() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/golden/paligemma/many_kv_heads");
        let mut device = PaliGemmaDevice::open(&folder, &LoadOptions::default()).unwrap();
        let batch = [
            item(0.1, &[2, 5], &[7, 8, 9]),
            item(0.5, &[2, 5], &[7, 8]),
            item(0.1, &[2, 6, 4], &[11]),
            item(0.1, &[2, 5], &[12, 13, 14, 15]),
        ];
        let together = device.score(&batch);
        for (item, got) in batch.iter().zip(together) {
            let alone = device.score(std::slice::from_ref(item)).remove(0).unwrap();
            let got = got.unwrap();
            assert_eq!(got.len(), item.response.len());
            for (a, b) in got.iter().zip(alone) {
                assert!((a - b).abs() < 1e-4, "{a} {b}");
            }
        }
    }
}
