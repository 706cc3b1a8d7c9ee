//! The corrector that is always at hand: the backbone's own language head rewrites flagged spans.
//!
//! What stands before a span is given, the model writes the span, and what follows stays to the
//! byte. A replacement is ranked by `ln p(it | before) + ln p(what follows next | before, it)`: a
//! repair has to fit its place. Whether it is better is not for the corrector to say.

mod infill;
mod lexicon;
mod whole;

use std::sync::Arc;

use futures::future::join_all;
use sleuth_core::{ByteSpan, Failure, GuidanceLevel};
use sleuth_engine::Generator;
use sleuth_input::Preparer;

use self::infill::{Draft, Place, Replacement};
use self::lexicon::Lexicon;
use super::{Corrector, Repair, RepairRequest};
use crate::open::INLINE_TEXT;
use crate::{BoxFuture, failures};

/// Rewrites what is flagged, word spans at a time, by a generating backbone.
///
/// With [`GuidanceLevel::Token`] every flagged span is rewritten: never as it was, never as nothing,
/// in at most its own number of words and two more; of very many spans the first eight.
/// With less guidance it answers the prompt anew.
#[derive(Debug)]
pub struct BuiltinCorrector {
    shared: Arc<Shared>,
}

/// What all requests use.
#[derive(Debug)]
struct Shared {
    generator: Generator,
    preparer: Arc<Preparer>,
    lexicon: Lexicon,
}

/// Spans that one proposal rewrites at most; what is left is for a later round.
const MOST_SPANS: usize = 8;
/// Partly repaired responses that are carried from span to span.
const DRAFTS: usize = 4;

// === impl BuiltinCorrector ===

impl BuiltinCorrector {
    /// Over a backbone whose folder has this tokenizer.
    pub fn new(generator: Generator, preparer: Arc<Preparer>) -> Self {
        let lexicon = Lexicon::new(preparer.tokenizer(), generator.facts().vocabulary);
        Self { shared: Arc::new(Shared { generator, preparer, lexicon }) }
    }

    async fn repairs(&self, request: &RepairRequest) -> Result<Vec<Repair>, Failure> {
        let shared = &self.shared;
        let text = request.prompt.clone();
        let own = Arc::clone(shared);
        let prompt =
            on_text(text.len(), move || Ok(own.preparer.tokenizer().encode_prompt(&text)?)).await?;
        if request.guidance != GuidanceLevel::Token {
            return shared.anew(request, prompt).await;
        }
        let flagged = usable(&request.response, &request.flagged);
        if flagged.is_empty() {
            return Ok(Vec::new());
        }
        let mut drafts = vec![Draft::new(&request.response)];
        for (at, &span) in flagged.iter().enumerate() {
            let is_last = at + 1 == flagged.len();
            let most = if is_last { request.candidates } else { request.candidates.min(DRAFTS) };
            let work = drafts.iter().enumerate().map(|(n, draft)| {
                let place = Place {
                    request,
                    prompt: Arc::clone(&prompt),
                    span: draft.moved(span),
                    seed: seed(request.seed, at, n),
                };
                shared.replacements(draft.text(), place)
            });
            let found = join_all(work).await.into_iter().collect::<Result<Vec<_>, Failure>>()?;
            drafts = best(drafts, span, found, most);
        }
        let whole = drafts.into_iter().filter(|draft| draft.text() != request.response);
        Ok(whole.map(Draft::into_repair).take(request.candidates).collect())
    }
}

impl Corrector for BuiltinCorrector {
    fn propose<'a>(
        &'a self,
        request: &'a RepairRequest,
    ) -> BoxFuture<'a, Result<Vec<Repair>, Failure>> {
        Box::pin(self.repairs(request))
    }
}

/// Each draft with its best replacements, the likeliest first; a draft for whose span nothing was
/// found goes on as it is.
fn best(
    drafts: Vec<Draft>,
    span: ByteSpan,
    found: Vec<Vec<Replacement>>,
    most: usize,
) -> Vec<Draft> {
    // So that no draft crowds out the others.
    let each = most.div_ceil(drafts.len().max(1)) + 1;
    let mut next: Vec<Draft> = Vec::new();
    for (draft, replacements) in drafts.into_iter().zip(found) {
        if replacements.is_empty() {
            next.push(draft);
            continue;
        }
        let replacements = replacements.into_iter().take(each);
        next.extend(replacements.map(|replacement| draft.with(span, &replacement)));
    }
    // Stable: of equals the one found first.
    next.sort_by(|a, b| b.score().total_cmp(&a.score()));
    let mut seen = std::collections::HashSet::new();
    next.retain(|draft| seen.insert(draft.text().to_owned()));
    next.truncate(most);
    next
}

/// The first spans that lie in the text, hold something, and do not overlap.
fn usable(text: &str, flagged: &[ByteSpan]) -> Vec<ByteSpan> {
    let mut end = 0;
    let mut spans = Vec::new();
    for &span in flagged {
        let holds = text.get(span.range()).is_some_and(|piece| !piece.trim().is_empty());
        if holds && span.start() >= end {
            end = span.end();
            spans.push(span);
        }
    }
    spans.truncate(MOST_SPANS);
    spans
}

/// Of the samples for a span of a draft.
fn seed(seed: u64, span: usize, draft: usize) -> u64 {
    seed.wrapping_add((span as u64) << 32).wrapping_add((draft as u64) << 16)
}

/// Tokenising; of long texts off the async threads.
async fn on_text<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    if bytes <= INLINE_TEXT {
        return work();
    }
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(failures::worker_failed()))
}

#[cfg(test)]
mod tests;
