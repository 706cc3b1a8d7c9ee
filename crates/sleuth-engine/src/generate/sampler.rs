use candle_core::{Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling as Processed};

use super::{Sampling, Stop};

/// Chooses one candidate's tokens.
pub(super) struct Sampler(LogitsProcessor);

// === impl Sampler ===

impl Sampler {
    /// Of candidate `candidate`.
    pub(super) fn new(sampling: Sampling, candidate: usize) -> Self {
        let (processed, seed) = match sampling {
            Sampling::Greedy | Sampling::Branch => (Processed::ArgMax, 0),
            Sampling::Random { temperature, .. } if temperature < LEAST_TEMPERATURE => {
                (Processed::ArgMax, 0)
            }
            Sampling::Random { temperature, top_p, top_k, seed } => {
                let processed = match (top_k, top_p) {
                    (None, None) => Processed::All { temperature },
                    (Some(k), None) => Processed::TopK { k: k.get(), temperature },
                    (None, Some(p)) => Processed::TopP { p, temperature },
                    (Some(k), Some(p)) => Processed::TopKThenTopP { k: k.get(), p, temperature },
                };
                (processed, stream(seed, candidate))
            }
        };
        Self(LogitsProcessor::from_sampling(seed, processed))
    }

    /// The next token among those with a finite logit; `None` where there is none.
    pub(super) fn choose(&mut self, logits: &[f32]) -> candle_core::Result<Option<u32>> {
        if !logits.iter().any(|x| x.is_finite()) {
            return Ok(None);
        }
        let logits = Tensor::from_slice(logits, logits.len(), &Device::Cpu)?;
        self.0.sample(&logits).map(Some)
    }
}

/// Below, candle's processor would divide by next to nothing.
const LEAST_TEMPERATURE: f64 = 1e-7;

/// A stream of its own for each candidate (SplitMix64's mixing of the seed and its place).
fn stream(seed: u64, candidate: usize) -> u64 {
    let mut z = seed.wrapping_add((candidate as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Logits with those that `stop` does not allow at this place at minus infinity.
pub(super) fn allowed(logits: &[f32], stop: &Stop, is_first: bool) -> Vec<f32> {
    let set = if is_first { &stop.first } else { &stop.later };
    let Some(set) = set else { return logits.to_vec() };
    let ends = |id: u32| !is_first && stop.is_end(id);
    let each = logits.iter().zip(0..);
    each.map(|(&x, id)| if set.contains(id) || ends(id) { x } else { f32::NEG_INFINITY }).collect()
}

/// The `count` likeliest tokens, likeliest first; of equals the lower id first. Fewer where fewer
/// are allowed.
pub(super) fn likeliest(logits: &[f32], count: usize) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    let by_logit =
        |a: &u32, b: &u32| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b));
    if count < ids.len() {
        ids.select_nth_unstable_by(count, by_logit);
        ids.truncate(count);
    }
    ids.sort_unstable_by(by_logit);
    ids.retain(|&id| logits[id as usize].is_finite());
    ids
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TokenSet;

    #[test]
    fn the_likeliest_come_in_order_and_only_where_allowed() {
        let logits = [1.0, 3.0, f32::NEG_INFINITY, 3.0, 2.0];
        assert_eq!(likeliest(&logits, 3), [1, 3, 4]);
        assert_eq!(likeliest(&logits, 9), [1, 3, 4, 0]);
        assert_eq!(likeliest(&[f32::NEG_INFINITY; 2], 1), [] as [u32; 0]);
    }

    #[test]
    fn what_is_not_allowed_is_never_chosen() {
        let stop = Stop {
            tokens: [4].into(),
            first: Some(TokenSet::new(5, |id| id == 2 || id == 4)),
            later: Some(TokenSet::new(5, |id| id == 1)),
            ..Stop::default()
        };
        let finite = |logits: Vec<f32>| -> Vec<usize> {
            (0..5).filter(|&id| logits[id].is_finite()).collect()
        };
        assert_eq!(finite(allowed(&[0.0; 5], &stop, true)), [2, 4]);
        assert_eq!(finite(allowed(&[0.0; 5], &stop, false)), [1, 4]);
        let mut sampler = Sampler::new(
            Sampling::Random { temperature: 5.0, top_p: None, top_k: None, seed: 3 },
            0,
        );
        let logits = allowed(&[9.0, 1.0, 0.0, 9.0, 0.5], &stop, true);
        for _ in 0..200 {
            assert!(matches!(sampler.choose(&logits).unwrap(), Some(2 | 4)));
        }
        assert_eq!(sampler.choose(&[f32::NEG_INFINITY; 5]).unwrap(), None);
    }

    #[test]
    fn a_seed_gives_the_same_tokens_and_each_candidate_others() {
        let logits: Vec<f32> = (0..100).map(|i| (i % 7) as f32 / 7.0).collect();
        let draw = |seed, candidate| -> Vec<u32> {
            let random = Sampling::Random {
                temperature: 1.0,
                top_p: Some(0.9),
                top_k: std::num::NonZeroUsize::new(50),
                seed,
            };
            let mut sampler = Sampler::new(random, candidate);
            (0..20).map(|_| sampler.choose(&logits).unwrap().unwrap()).collect()
        };
        assert_eq!(draw(1, 0), draw(1, 0));
        assert_ne!(draw(1, 0), draw(1, 1));
        assert_ne!(draw(1, 0), draw(2, 0));
    }

    #[test]
    fn no_temperature_is_the_likeliest() {
        let cold = Sampling::Random { temperature: 0.0, top_p: None, top_k: None, seed: 1 };
        assert_eq!(Sampler::new(cold, 0).choose(&[0.0, 2.0, 1.0]).unwrap(), Some(1));
    }
}
