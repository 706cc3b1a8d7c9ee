use crate::ScoreRequest;

/// Who proposes repairs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CorrectorKind {
    /// The backbone's own language head.
    #[default]
    Builtin,
    /// An OpenAI-compatible server that the operator has set.
    Endpoint,
    /// Nobody here: the guidance prompt is returned for the caller's policy.
    Guidance,
}

/// How much a corrector is told (TLDR section 5.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum GuidanceLevel {
    /// Which words are not grounded.
    #[default]
    Token,
    /// That something is not grounded.
    Response,
    /// Nothing: the naive baseline.
    Naive,
}

/// An item to correct.
#[derive(Clone, Debug, PartialEq)]
pub struct CorrectRequest<B> {
    /// The item as it stands; its timeout is for all of the correction.
    pub item: ScoreRequest<B>,
    /// Who proposes repairs.
    pub corrector: CorrectorKind,
    /// What it is told.
    pub guidance: GuidanceLevel,
    /// Rounds at most, 1 to [`MAX_ROUNDS`](crate::MAX_ROUNDS).
    pub max_rounds: u32,
    /// Repairs that are scored in a round at most, 1 to [`MAX_CANDIDATES`](crate::MAX_CANDIDATES).
    pub max_candidates: u32,
    /// Of what is sampled.
    pub seed: u64,
}

/// Most rounds of a correction.
pub const MAX_ROUNDS: u32 = 8;
/// Most repairs that are scored in a round.
pub const MAX_CANDIDATES: u32 = 16;

// === impl CorrectorKind ===

impl CorrectorKind {
    /// Every corrector, in the order of the wire's numbers.
    pub const ALL: [Self; 3] = [Self::Builtin, Self::Endpoint, Self::Guidance];

    /// The name used in JSON, logs and arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Builtin => "builtin",
            Self::Endpoint => "endpoint",
            Self::Guidance => "guidance",
        }
    }
}

// === impl GuidanceLevel ===

impl GuidanceLevel {
    /// Every level, in the order of the wire's numbers.
    pub const ALL: [Self; 3] = [Self::Token, Self::Response, Self::Naive];

    /// The name used in JSON, logs and arguments.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Response => "response",
            Self::Naive => "naive",
        }
    }
}

// === impl CorrectRequest ===

impl<B> CorrectRequest<B> {
    /// One round of one repair by the default corrector, told all.
    pub fn new(item: ScoreRequest<B>) -> Self {
        Self {
            item,
            corrector: CorrectorKind::default(),
            guidance: GuidanceLevel::default(),
            max_rounds: 1,
            max_candidates: 1,
            seed: 0,
        }
    }
}
