use std::collections::HashSet;
use std::num::NonZeroUsize;
use std::sync::Arc;

use sleuth_core::{ByteSpan, Encoded, Failure, words};
use sleuth_engine::{Candidate, Ended, Generate, Rate, Sampling};
use sleuth_input::InputError;

use super::lexicon::{Lead, Lexicon};
use super::{Shared, on_text};
use crate::correct::{Repair, RepairRequest};
use crate::failures;

/// A response of which some spans are rewritten already.
#[derive(Clone, Debug)]
pub(super) struct Draft {
    text: String,
    /// Spans of the request's response, and the bytes that now stand there.
    changed: Vec<(ByteSpan, u32)>,
    score: f32,
}

/// A span that is to be rewritten.
#[derive(Clone, Debug)]
pub(super) struct Place<'a> {
    pub(super) request: &'a RepairRequest,
    /// Its tokens.
    pub(super) prompt: Arc<[u32]>,
    /// In the draft's text.
    pub(super) span: ByteSpan,
    pub(super) seed: u64,
}

/// What may stand in a span.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Replacement {
    pub(super) text: String,
    /// `ln p` of it and of what follows next.
    pub(super) score: f32,
}

/// Where a span is written: what the model is given, and how a candidate begins.
#[derive(Debug)]
struct Opening {
    given: Arc<[u32]>,
    lead: Lead,
    /// Tokens of the span now.
    tokens: usize,
}

/// Words that a span may have more than it has.
const MORE_WORDS: usize = 2;
/// Words of a longer span are not counted: it is rewritten in so many at most.
const MOST_WORDS: usize = 32;
/// Tokens of a word at least, so that one may be spelled in pieces.
const WORD_TOKENS: usize = 6;
/// Tokens of a rewritten span at most.
const MOST_TOKENS: usize = 96;
/// Bytes after the span that a replacement has to fit.
const FOLLOWING: usize = 32;
/// Replacements that are rated.
const MOST_RATED: usize = 48;
/// Of the samples beside the likeliest beginnings.
const TEMPERATURE: f64 = 1.0;
const TOP_P: f64 = 0.95;

// === impl Draft ===

impl Draft {
    pub(super) fn new(text: &str) -> Self {
        Self { text: text.to_owned(), changed: Vec::new(), score: 0.0 }
    }

    pub(super) fn text(&self) -> &str {
        &self.text
    }

    pub(super) fn score(&self) -> f32 {
        self.score
    }

    /// Where a span of the request's response, behind all changed ones, is now.
    pub(super) fn moved(&self, span: ByteSpan) -> ByteSpan {
        let shift: i64 =
            self.changed.iter().map(|(old, new)| i64::from(*new) - i64::from(old.len())).sum();
        let at = |byte: u32| u32::try_from(i64::from(byte) + shift).unwrap_or(0);
        ByteSpan::try_new(at(span.start()), at(span.end())).unwrap_or(ByteSpan::empty(0))
    }

    pub(super) fn with(&self, span: ByteSpan, replacement: &Replacement) -> Self {
        let mut text = self.text.clone();
        text.replace_range(self.moved(span).range(), &replacement.text);
        let mut changed = self.changed.clone();
        // A replacement is some words.
        changed.push((span, u32::try_from(replacement.text.len()).unwrap_or(u32::MAX)));
        Self { text, changed, score: self.score + replacement.score }
    }

    pub(super) fn into_repair(self) -> Repair {
        Repair {
            response: self.text,
            changed: self.changed.into_iter().map(|(span, _)| span).collect(),
        }
    }
}

// === impl Shared ===

impl Shared {
    /// What may stand in a span of `text`, the likeliest first: each once, none as it is now, none
    /// without a character.
    pub(super) async fn replacements(
        self: &Arc<Self>,
        text: &str,
        place: Place<'_>,
    ) -> Result<Vec<Replacement>, Failure> {
        let (shared, own, span) = (Arc::clone(self), text.to_owned(), place.span);
        let opening = on_text(text.len(), move || shared.opening(&own, span)).await?;
        let written = self.written(&text[span.range()], &opening, &place).await?;
        let texts = self.cut(&written, &text[span.range()]);
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let (shared, own) = (Arc::clone(self), text.to_owned());
        let most = texts.len() * text.len();
        let (given, continuations, texts) =
            on_text(most, move || Ok(shared.continuations(&own, span, texts))).await?;
        let request = place.request;
        let rate = Rate {
            pixels: request.pixels.clone(),
            image_key: request.image_key,
            prompt: place.prompt,
            given,
            continuations,
        };
        let rated = self.rate(rate, request.deadline).await?;
        let mut found: Vec<Replacement> = texts
            .into_iter()
            .zip(rated)
            .map(|(text, rated)| Replacement { text, score: rated.iter().sum() })
            .collect();
        found.sort_by(|a, b| b.score.total_cmp(&a.score));
        Ok(found)
    }

    /// How the model comes to a span. A token that begins with the space in front of the span, or is
    /// that space, is written anew with it; where a token holds more of what stands before, that is
    /// tokenised by itself.
    fn opening(&self, text: &str, span: ByteSpan) -> Result<Opening, Failure> {
        let Encoded { ids, spans } = self.encode(text)?;
        let start = span.start();
        let first = spans.partition_point(|token| token.end() <= start);
        let tokens = spans[first..].iter().take_while(|token| token.start() < span.end()).count();
        let Some(token) = spans.get(first) else {
            return Ok(Opening { given: ids.into(), lead: Lead::Text, tokens: 1 });
        };
        // A word of few tokens has its space in one of them; one of many may have it by itself.
        let is_space = |at: usize| self.lexicon.spelling(ids[at]) == Some(b" ");
        if let Some(before) = first.checked_sub(1)
            && (spans[before].start() + 1, spans[before].end()) == (start, start)
            && is_space(before)
        {
            return Ok(Opening { given: ids[..before].into(), lead: Lead::Space, tokens });
        }
        let between = text.get(token.start() as usize..start as usize).unwrap_or("");
        if token.start() <= start && between.trim().is_empty() && between.len() <= 1 {
            let given = ids[..first].into();
            return Ok(Opening { given, lead: self.lexicon.lead(ids[first]), tokens });
        }
        let before = self.encode(&text[..start as usize])?.ids;
        Ok(Opening { given: before.into(), lead: Lead::Text, tokens })
    }

    /// The likeliest beginnings gone on with, and some samples.
    async fn written(
        &self,
        span: &str,
        opening: &Opening,
        place: &Place<'_>,
    ) -> Result<Vec<Candidate>, Failure> {
        let request = place.request;
        let now = words(span).len().clamp(1, MOST_WORDS);
        let most = now + MORE_WORDS;
        let word = WORD_TOKENS.max(2 * opening.tokens.div_ceil(now));
        // One more than needed shows that the last word is over.
        let tokens = (word * most + 1).min(MOST_TOKENS);
        let limit = self.generator.settings().max_running_candidates.get();
        let generate = |candidates: usize, sampling| Generate {
            pixels: request.pixels.clone(),
            image_key: request.image_key,
            prompt: Arc::clone(&place.prompt),
            given: Arc::clone(&opening.given),
            candidates: at_least_one(candidates.min(limit)),
            max_tokens: at_least_one(tokens),
            sampling,
            stop: self.lexicon.stop(opening.lead, span, at_least_one(most)),
        };
        let random = Sampling::Random {
            temperature: TEMPERATURE,
            top_p: Some(TOP_P),
            top_k: None,
            seed: place.seed,
        };
        let branches = generate(request.candidates + 2, Sampling::Branch);
        let samples = generate(request.candidates.div_ceil(2), random);
        let (branches, samples) = futures::future::join(
            self.generator.generate(branches, request.deadline),
            self.generator.generate(samples, request.deadline),
        )
        .await;
        let mut written = branches.map_err(failures::from_engine)?;
        written.extend(samples.map_err(failures::from_engine)?);
        Ok(written)
    }

    /// The texts that candidates hold up to each end of a word: distinct, in order.
    fn cut(&self, written: &[Candidate], span: &str) -> Vec<String> {
        let now = words(span).len();
        let mut seen = HashSet::from([span.to_owned()]);
        let mut texts = Vec::new();
        // The first words of all candidates before the second of any: these differ most.
        let cuts: Vec<Vec<String>> =
            written.iter().map(|candidate| cuts(&self.lexicon, candidate, now)).collect();
        let longest = cuts.iter().map(Vec::len).max().unwrap_or(0);
        for at in 0..longest {
            for text in cuts.iter().filter_map(|cuts| cuts.get(at)) {
                if seen.insert(text.clone()) {
                    texts.push(text.clone());
                }
            }
        }
        texts.truncate(MOST_RATED);
        texts
    }

    /// What is common to the tokens of all repaired texts, and how each goes on from there through
    /// its replacement and a little of what follows; `<eos>` where nothing does. Texts that cannot be
    /// tokenised are left out.
    #[expect(clippy::type_complexity, reason = "one caller, which takes it apart at once")]
    fn continuations(
        &self,
        text: &str,
        span: ByteSpan,
        texts: Vec<String>,
    ) -> (Arc<[u32]>, Vec<Arc<[u32]>>, Vec<String>) {
        let (before, after) = (&text[..span.start() as usize], &text[span.end() as usize..]);
        let cut = following(after);
        let mut all: Vec<Vec<u32>> = Vec::new();
        let mut kept = Vec::new();
        for replacement in texts {
            let whole = format!("{before}{replacement}{cut}");
            let Ok(encoded) = self.encode(&whole) else { continue };
            let mut ids = encoded.ids;
            if cut.len() == after.len() {
                ids.push(self.lexicon.eos());
            }
            all.push(ids);
            kept.push(replacement);
        }
        let [first, rest @ ..] = all.as_slice() else {
            return (Arc::from([]), Vec::new(), Vec::new());
        };
        let common = rest.iter().fold(first.len(), |common, ids| {
            first.iter().zip(ids).take(common).take_while(|(a, b)| a == b).count()
        });
        let given = first[..common].into();
        (given, all.iter().map(|ids| ids[common..].into()).collect(), kept)
    }

    async fn rate(
        &self,
        rate: Rate,
        deadline: Option<tokio::time::Instant>,
    ) -> Result<Vec<Vec<f32>>, Failure> {
        let limit = self.generator.settings().max_running_candidates.get();
        let mut rated = Vec::new();
        for continuations in rate.continuations.chunks(limit) {
            let rate = Rate { continuations: continuations.to_vec(), ..rate.clone() };
            let some = self.generator.rate(rate, deadline).await;
            rated.extend(some.map_err(failures::from_engine)?);
        }
        Ok(rated)
    }

    /// A text's tokens; the empty text has none.
    fn encode(&self, text: &str) -> Result<Encoded, Failure> {
        match self.preparer.tokenizer().encode_response(text) {
            Ok(encoded) => Ok(encoded),
            Err(InputError::ResponseEmpty) => Ok(Encoded { ids: Vec::new(), spans: Vec::new() }),
            Err(error) => Err(error.into()),
        }
    }
}

/// A candidate's texts up to the ends of its words, where these are as many as the span has or up to
/// two more or fewer. A word counts as ended where the next begins, or the model stopped.
fn cuts(lexicon: &Lexicon, candidate: &Candidate, now: usize) -> Vec<String> {
    let Some((text, ends)) = lexicon.read_start(&candidate.tokens) else { return Vec::new() };
    let stopped = candidate.ended == Ended::Stop && ends.len() == candidate.tokens.len();
    let words: Vec<usize> = words(&text).iter().map(|word| word.end() as usize).collect();
    let is_over = |end: usize| ends.contains(&end) && (end < text.len() || stopped);
    let mut texts: Vec<String> = words
        .iter()
        .enumerate()
        .filter(|&(at, &end)| is_over(end) && at + 1 + MORE_WORDS >= now)
        .filter_map(|(_, &end)| text.get(..end))
        .map(|text| text.trim().to_owned())
        .collect();
    // Marks alone, as for a span of marks.
    if words.is_empty() && now == 0 && stopped {
        texts.push(text.trim().to_owned());
    }
    texts.retain(|text| !text.is_empty() && !text.contains("  "));
    texts
}

/// The beginning of `after` that a replacement has to fit, cut at the end of a word.
fn following(after: &str) -> &str {
    if after.len() <= FOLLOWING {
        return after;
    }
    let end = words(after).iter().map(|word| word.end() as usize).find(|&end| end >= FOLLOWING / 2);
    // A very long word is cut anywhere between characters.
    let end = end.filter(|&end| end <= 2 * FOLLOWING);
    &after[..end.unwrap_or_else(|| after.floor_char_boundary(FOLLOWING))]
}

fn at_least_one(n: usize) -> NonZeroUsize {
    NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_is_cut_at_a_word() {
        assert_eq!(following(" ball."), " ball.");
        assert_eq!(
            following(" one two three four five six seven eight nine"),
            " one two three four"
        );
        let long = "x".repeat(200);
        assert_eq!(following(&long).len(), FOLLOWING);
        let han = "红".repeat(60);
        assert!(following(&han).len() <= 2 * FOLLOWING && han.starts_with(following(&han)));
    }

    #[test]
    fn spans_move_with_what_is_rewritten_before_them() {
        let span = |from, to| ByteSpan::try_new(from, to).unwrap();
        let draft = Draft::new("a red ball and a blue cube");
        let green = Replacement { text: "green".to_owned(), score: -1.0 };
        let draft = draft.with(span(2, 5), &green);
        assert_eq!(draft.text(), "a green ball and a blue cube");
        let pink = Replacement { text: "pink and white".to_owned(), score: -0.5 };
        let draft = draft.with(span(17, 21), &pink);
        assert_eq!(draft.text(), "a green ball and a pink and white cube");
        assert!((draft.score() + 1.5).abs() < 1e-6);
        assert_eq!(draft.into_repair().changed, [span(2, 5), span(17, 21)]);
    }
}
