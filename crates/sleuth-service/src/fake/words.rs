use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use sleuth_core::{
    ByteSpan, CacheUse, Context, Encoded, ErrorClass, Failure, ModelCard, Options, Pixels, Reason,
    ScoreRequest, Scored, SentenceReward, Timing, TokenReward, changes, sentences, words,
};
use tokio::time::Instant;

use super::card;
use crate::{
    BoxFuture, Caller, Correctable, Corrector, EncodedImage, ImageStore, OpenItem, Repair,
    RepairRequest, Rescorer, Scorer, Sight, Tokenized,
};

/// Scores by what words say: one that holds `bad` is flagged, one that holds `meh` is doubtful, all
/// others are grounded. A token is a word, a space or a full stop.
#[derive(Clone, Debug)]
pub struct WordScorer {
    card: Arc<ModelCard>,
    images: Arc<ImageStore>,
    /// How long each scoring takes.
    delay: Duration,
    /// Every scoring, as the responses that it scored together.
    scored: Arc<Mutex<Vec<Vec<String>>>>,
}

/// A corrector that gives scripted answers in turn, and then nothing.
#[derive(Debug, Default)]
pub struct ScriptedCorrector {
    answers: Mutex<VecDeque<Result<Vec<String>, Failure>>>,
    /// How long each answer takes.
    delay: Duration,
    asked: Mutex<Vec<RepairRequest>>,
}

struct WordRescorer {
    scorer: WordScorer,
    options: Options,
}

/// A response of more words is too large.
const MOST_WORDS: usize = 5000;

// === impl WordScorer ===

impl WordScorer {
    /// Every scoring takes so long.
    pub fn new(delay: Duration) -> Self {
        Self {
            card: Arc::new(card()),
            images: Arc::new(ImageStore::new(1 << 20, 64 << 10)),
            delay,
            scored: Arc::default(),
        }
    }

    /// Every scoring so far, as the responses that it scored together.
    pub fn scored(&self) -> Vec<Vec<String>> {
        lock(&self.scored).clone()
    }

    async fn score_all(&self, texts: Vec<String>, o: Options) -> Vec<Result<Scored, Failure>> {
        lock(&self.scored).push(texts.clone());
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        texts.iter().map(|text| self.verdict(text, o)).collect()
    }

    #[expect(clippy::panic, reason = "the response asks for a panic")]
    fn verdict(&self, text: &str, options: Options) -> Result<Scored, Failure> {
        let failure = |class, reason| Err(Failure::new(class, reason, "scripted").at("response"));
        match text {
            "" => return failure(ErrorClass::InvalidRequest, Reason::RESPONSE_EMPTY),
            "overload" => return failure(ErrorClass::Overload, Reason::QUEUE_FULL),
            "panic" => panic!("scripted"),
            _ if words(text).len() > MOST_WORDS => {
                return failure(ErrorClass::TooLarge, Reason::RESPONSE_TOO_LARGE);
            }
            _ => {}
        }
        let threshold = options.threshold.unwrap_or(self.card.threshold);
        let tokens = tokens(text);
        let reward = |tokens: &[TokenReward]| options.aggregation.apply(tokens, threshold);
        let spans: Vec<ByteSpan> = tokens.iter().map(|token| token.span).collect();
        let sentences = sentences(options.sentences, text, &spans)
            .into_iter()
            .filter_map(|range| tokens.get(range))
            .filter_map(|part| {
                let span = part.first()?.span.to(part.last()?.span);
                Some(SentenceReward { span, reward: reward(part)? })
            })
            .collect();
        Ok(Scored {
            flagged: Scored::flagged_spans(&tokens, threshold),
            reward: reward(&tokens).unwrap_or_default(),
            sentences,
            aggregation: options.aggregation,
            version: self.card.version.clone(),
            batch_invariant: true,
            timing: Timing::default(),
            cache: CacheUse::default(),
            policy: None,
            duplicates_joined: 0,
            tokens,
        })
    }
}

fn tokens(text: &str) -> Vec<TokenReward> {
    let is_word = |c: char| !c.is_whitespace() && c != '.';
    let mut out = Vec::new();
    let mut start = 0;
    for (at, c) in text.char_indices() {
        let end = at + c.len_utf8();
        let goes_on = text[end..].starts_with(is_word) && is_word(c);
        if !goes_on {
            let word = &text[start..end];
            let logit = match () {
                () if word.contains("bad") => -2.0,
                () if word.contains("meh") => 0.3,
                () => 3.0,
            };
            let span = ByteSpan::try_new(start as u32, end as u32);
            let span = span.unwrap_or(ByteSpan::empty(0));
            out.push(TokenReward::from_logit(span, logit));
            start = end;
        }
    }
    out
}

impl Scorer for WordScorer {
    fn score<'a>(
        &'a self,
        _: &'a Caller,
        request: ScoreRequest<Bytes>,
    ) -> BoxFuture<'a, Result<Scored, Failure>> {
        Box::pin(async move {
            let options = request.context.options;
            let mut all = self.score_all(vec![request.response], options).await;
            all.pop().unwrap_or_else(|| Err(crate::failures::worker_failed()))
        })
    }

    fn open<'a>(
        &'a self,
        _: &'a Caller,
        _: Context<Bytes>,
    ) -> BoxFuture<'a, Result<OpenItem, Failure>> {
        let failure = Failure::new(ErrorClass::Unsupported, Reason::NOT_OFFERED, "whole items");
        Box::pin(std::future::ready(Err(failure)))
    }

    fn images(&self) -> &Arc<ImageStore> {
        &self.images
    }

    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Tokenized, Failure>> {
        let spans: Vec<ByteSpan> = tokens(&text).iter().map(|token| token.span).collect();
        let encoded = Encoded { ids: vec![0; spans.len()], spans };
        let version = self.card.version.clone();
        Box::pin(std::future::ready(Ok(Tokenized { encoded, version })))
    }

    fn model_of<'a>(&'a self, adapter: &'a str) -> BoxFuture<'a, Result<Arc<ModelCard>, Failure>> {
        let card = Arc::clone(&self.card);
        let known = adapter.is_empty() || card.adapter.as_deref() == Some(adapter);
        let card = known.then_some(card).ok_or_else(crate::failures::no_adapter);
        Box::pin(std::future::ready(card))
    }
}

impl Correctable for WordScorer {
    fn rescorer<'a>(
        &'a self,
        _: &'a Caller,
        context: Context<Bytes>,
    ) -> BoxFuture<'a, Result<Box<dyn Rescorer>, Failure>> {
        let rescorer = WordRescorer { scorer: self.clone(), options: context.options };
        Box::pin(std::future::ready(Ok(Box::new(rescorer) as Box<dyn Rescorer>)))
    }
}

// === impl WordRescorer ===

impl Rescorer for WordRescorer {
    fn card(&self) -> &ModelCard {
        &self.scorer.card
    }

    fn sight(&self) -> BoxFuture<'_, Result<Sight, Failure>> {
        Box::pin(async {
            let data = Bytes::from_static(b"\x89PNG an image");
            let pixels = Pixels::try_new(1, 1, vec![0.0; 3].into())
                .map_err(|_| crate::failures::worker_failed())?;
            let blake3 = *blake3::hash(&data).as_bytes();
            let image = EncodedImage { data, blake3 };
            Ok(Sight { image, pixels, image_key: blake3, prompt: "What is there?".to_owned() })
        })
    }

    fn score(
        &self,
        responses: Vec<String>,
        _: Option<Instant>,
    ) -> BoxFuture<'_, Vec<Result<Scored, Failure>>> {
        Box::pin(self.scorer.score_all(responses, self.options))
    }
}

// === impl ScriptedCorrector ===

impl ScriptedCorrector {
    /// Gives these answers in turn, each after so long.
    pub fn new<const N: usize>(
        delay: Duration,
        answers: [Result<Vec<&str>, Failure>; N],
    ) -> Arc<Self> {
        let owned = |texts: Vec<&str>| texts.into_iter().map(str::to_owned).collect();
        let answers = answers.into_iter().map(|answer| answer.map(owned)).collect();
        Arc::new(Self { answers: Mutex::new(answers), delay, asked: Mutex::default() })
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<RepairRequest> {
        lock(&self.asked).clone()
    }
}

impl Corrector for ScriptedCorrector {
    fn propose<'a>(
        &'a self,
        request: &'a RepairRequest,
    ) -> BoxFuture<'a, Result<Vec<Repair>, Failure>> {
        Box::pin(async move {
            lock(&self.asked).push(request.clone());
            if !self.delay.is_zero() {
                tokio::time::sleep(self.delay).await;
            }
            let answer = lock(&self.answers).pop_front().unwrap_or(Ok(Vec::new()))?;
            let repair = |response: String| {
                assert!(response != "corrector panic", "scripted");
                let changed = changes(&request.response, &response);
                Repair { changed: changed.iter().map(|c| c.before).collect(), response }
            };
            Ok(answer.into_iter().map(repair).collect())
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
