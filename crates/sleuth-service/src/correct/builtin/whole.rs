use std::num::NonZeroUsize;
use std::sync::Arc;

use sleuth_core::{ByteSpan, Failure};
use sleuth_engine::{Candidate, Ended, Generate, Sampling};

use super::Shared;
use crate::correct::{Repair, RepairRequest};
use crate::failures;

/// Tokens of an answer written anew at most.
const MOST_TOKENS: usize = 512;
/// Bytes of text that a token stands for at least, on the whole.
const BYTES_PER_TOKEN: usize = 2;
/// Tokens beyond those of the present answer.
const MORE_TOKENS: usize = 32;
/// Of the samples beside the likeliest answer.
const TEMPERATURE: f64 = 0.7;
const TOP_P: f64 = 0.95;

// === impl Shared ===

impl Shared {
    /// The prompt answered anew: the likeliest answer, then samples by their mean `ln p` per token.
    /// One that does not end in time, is no text, or says the same is left out.
    pub(super) async fn anew(
        &self,
        request: &RepairRequest,
        prompt: Arc<[u32]>,
    ) -> Result<Vec<Repair>, Failure> {
        let facts = self.generator.facts();
        let left = facts.max_positions.saturating_sub(facts.image_tokens + prompt.len());
        let tokens = request.response.len() / BYTES_PER_TOKEN + MORE_TOKENS;
        let Some(max_tokens) = NonZeroUsize::new(tokens.min(MOST_TOKENS).min(left)) else {
            return Ok(Vec::new());
        };
        let limit = self.generator.settings().max_running_candidates;
        let random = Sampling::Random {
            temperature: TEMPERATURE,
            top_p: Some(TOP_P),
            top_k: None,
            seed: request.seed,
        };
        let generate = |candidates, sampling| Generate {
            pixels: request.pixels.clone(),
            image_key: request.image_key,
            prompt: Arc::clone(&prompt),
            given: Arc::from([]),
            candidates,
            max_tokens,
            sampling,
            stop: self.lexicon.stop_at_end(facts.vocabulary),
        };
        let likeliest = generate(NonZeroUsize::MIN, Sampling::Greedy);
        let likeliest = self.generator.generate(likeliest, request.deadline);
        // One more than wanted, for one that does not end.
        let samples = NonZeroUsize::new(request.candidates).map(|n| generate(n.min(limit), random));
        let samples = async {
            match samples {
                Some(samples) => self.generator.generate(samples, request.deadline).await,
                None => Ok(Vec::new()),
            }
        };
        let (likeliest, samples) = futures::future::join(likeliest, samples).await;
        let mut samples = samples.map_err(failures::from_engine)?;
        samples.sort_by(|a, b| mean(b).total_cmp(&mean(a)));
        let mut candidates = likeliest.map_err(failures::from_engine)?;
        candidates.extend(samples);
        Ok(self.answers(request, &candidates))
    }

    fn answers(&self, request: &RepairRequest, candidates: &[Candidate]) -> Vec<Repair> {
        let end = u32::try_from(request.response.len()).unwrap_or(u32::MAX);
        let all = ByteSpan::try_new(0, end).unwrap_or(ByteSpan::empty(0));
        let mut repairs: Vec<Repair> = Vec::new();
        for candidate in candidates.iter().filter(|candidate| candidate.ended == Ended::Stop) {
            let Some((text, _)) = self.lexicon.read(&candidate.tokens) else { continue };
            let response = text.trim().to_owned();
            let is_new = response != request.response
                && !response.is_empty()
                && repairs.iter().all(|repair| repair.response != response);
            if is_new {
                repairs.push(Repair { response, changed: vec![all] });
            }
        }
        repairs.truncate(request.candidates);
        repairs
    }
}

fn mean(candidate: &Candidate) -> f32 {
    candidate.log_probability / (candidate.tokens.len().max(1) as f32)
}
