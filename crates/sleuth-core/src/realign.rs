use std::fmt;
use std::str::FromStr;

use crate::aggregate::ln_sigmoid;
use crate::{ByteSpan, TokenReward};

/// How the reward model's tokens that overlap a policy's token become its reward.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Realignment {
    /// The least of them: the default.
    #[default]
    Min,
    /// The mean of their probabilities.
    Mean,
    /// The product of their probabilities.
    Product,
}

/// No realignment has that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownRealignment(pub String);

/// The reward of one token of the policy's tokenizer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PolicyReward {
    /// Where the token stands in the response; empty for one without bytes, such as `<eos>`.
    pub span: ByteSpan,
    /// `None` where no scored token overlaps it, which is where `coverage` is 0.
    pub covered: Option<Covered>,
    /// The share of its bytes that scored tokens cover, 0..=1; 0 for a token without bytes.
    pub coverage: f32,
}

/// What a policy's token gets from the tokens that overlap it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Covered {
    /// Probability that the token is grounded in the image, 0..=1: `σ(logit)`.
    pub reward: f32,
    /// The reward's log-odds, finite.
    pub logit: f32,
}

/// Above this the product's odds are so small that their sum is all that f64 can tell, while the
/// odds themselves are still far from underflow.
const SURE: f64 = 300.0;

/// Takes each policy token's reward from the tokens that share a byte with it.
///
/// The spans of `tokens` never go back, but may repeat or overlap (the byte-fallback tokens of one
/// character all span it), leave gaps or be empty, and their logits are finite. The spans of
/// `policy` never go back and do not overlap. Gives one reward for each span of `policy`, in order.
///
/// A single token that overlaps gives its own bits. Takes time linear in the tokens and in the
/// bytes of the characters that several of them share.
pub fn realign(tokens: &[TokenReward], policy: &[ByteSpan], how: Realignment) -> Vec<PolicyReward> {
    let mut from = 0;
    let mut shared = Vec::new();
    let mut out = Vec::with_capacity(policy.len());
    for &span in policy {
        shared.clear();
        if !span.is_empty() {
            from += tokens[from..].iter().take_while(|t| t.span.end() <= span.start()).count();
            let near = tokens[from..].iter().take_while(|t| t.span.start() < span.end());
            shared.extend(near.filter(|t| t.span.overlaps(span)).copied());
        }
        let covered = how.covered(&shared);
        out.push(PolicyReward { span, covered, coverage: coverage(&shared, span) });
    }
    out
}

/// The spans of tokens that follow each other without gaps from byte 0, from where each ends.
///
/// `ends` never descends; one that does gives an empty span.
pub fn spans_of_ends(ends: &[u32]) -> Vec<ByteSpan> {
    let mut start = 0;
    let mut out = Vec::with_capacity(ends.len());
    for &end in ends {
        let span = ByteSpan::try_new(start, end).unwrap_or(ByteSpan::empty(start));
        start = span.end();
        out.push(span);
    }
    out
}

// === impl Realignment ===

impl Realignment {
    /// Every realignment, in the order of the wire's numbers.
    pub const ALL: [Self; 3] = [Self::Min, Self::Mean, Self::Product];

    /// The name used in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Min => "min",
            Self::Mean => "mean",
            Self::Product => "product",
        }
    }

    fn covered(self, shared: &[TokenReward]) -> Option<Covered> {
        match (self, shared) {
            (_, []) => None,
            (_, [only]) => Some(Covered::from(only)),
            (Self::Min, _) => shared.iter().min_by(|a, b| least(a, b)).map(Covered::from),
            (Self::Mean, _) => Some(Covered::from_logit(logit_of_mean(shared))),
            (Self::Product, _) => Some(Covered::from_logit(logit_of_product(shared))),
        }
    }
}

impl fmt::Display for Realignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Realignment {
    type Err = UnknownRealignment;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|r| r.name() == name)
            .ok_or_else(|| UnknownRealignment(name.to_owned()))
    }
}

// === impl UnknownRealignment ===

impl fmt::Display for UnknownRealignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = Realignment::ALL.map(Realignment::name).join(", ");
        write!(f, "no realignment is named `{}`; there are {names}", self.0)
    }
}

impl std::error::Error for UnknownRealignment {}

// === impl Covered ===

impl Covered {
    /// From log-odds in f64, which may leave the range of f32.
    fn from_logit(logit: f64) -> Self {
        let logit = logit.clamp(f64::from(f32::MIN), f64::from(f32::MAX)) as f32;
        Self::from(&TokenReward::from_logit(ByteSpan::empty(0), logit))
    }
}

impl From<&TokenReward> for Covered {
    fn from(token: &TokenReward) -> Self {
        Self { reward: token.reward, logit: token.logit }
    }
}

fn least(a: &TokenReward, b: &TokenReward) -> std::cmp::Ordering {
    a.reward.total_cmp(&b.reward).then(a.logit.total_cmp(&b.logit))
}

/// The share of the span's bytes that lie in a token; the tokens' starts never go back.
fn coverage(shared: &[TokenReward], span: ByteSpan) -> f32 {
    let mut reached = span.start();
    let mut bytes = 0;
    for token in shared {
        let end = token.span.end().min(span.end());
        bytes += end.saturating_sub(token.span.start().max(reached));
        reached = reached.max(end);
    }
    (f64::from(bytes) / f64::from(span.len().max(1))) as f32
}

/// Log-odds of `mean p`: `ln Σp - ln Σ(1-p)`, each from logarithms, so that neither sum underflows.
fn logit_of_mean(tokens: &[TokenReward]) -> f64 {
    let logits = tokens.iter().map(|t| f64::from(t.logit));
    ln_sum_exp(logits.clone().map(ln_sigmoid)) - ln_sum_exp(logits.map(|x| ln_sigmoid(-x)))
}

/// Log-odds of `∏p`: with `s = -ln ∏p` they are `-ln(e^s - 1)`.
fn logit_of_product(tokens: &[TokenReward]) -> f64 {
    let logits = tokens.iter().map(|t| f64::from(t.logit));
    if logits.clone().fold(f64::INFINITY, f64::min) > SURE {
        return -ln_sum_exp(logits.map(|x| -x));
    }
    let s: f64 = logits.map(|x| -ln_sigmoid(x)).sum();
    -s - (-(-s).exp_m1()).ln()
}

/// `ln Σ e^x`, of at least one finite number.
fn ln_sum_exp(xs: impl Iterator<Item = f64> + Clone) -> f64 {
    let most = xs.clone().fold(f64::NEG_INFINITY, f64::max);
    most + xs.map(|x| (x - most).exp()).sum::<f64>().ln()
}

#[cfg(test)]
mod tests;
