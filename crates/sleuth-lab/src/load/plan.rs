#[cfg(test)]
mod tests;

use std::fmt;
use std::iter::FusedIterator;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use serde::Serialize;

/// Highest rate, in items per second, far above what one generator can send.
const MOST_RATE: f64 = 1e7;
/// Most members of a group.
const MOST_MEMBERS: u32 = 65_536;
/// Most words of a response.
const MOST_WORDS: usize = 100_000;

/// How groups arrive. All members of a group arrive at its moment.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Arrivals {
    /// Groups arrive as a Poisson process.
    Poisson {
        /// Items per second, above 0; groups arrive at this rate divided by their size.
        rate_per_second: f64,
    },
    /// The groups of a training step arrive at once.
    Steps {
        /// Groups of a step, at least 1.
        groups: usize,
        /// From step to step, above 0; the first comes at 0.
        #[serde(rename = "every_seconds", serialize_with = "super::seconds")]
        every: Duration,
    },
    /// Groups arrive at even distances; the first comes at 0.
    Even {
        /// Items per second, above 0; groups arrive at this rate divided by their size.
        rate_per_second: f64,
    },
}

/// When the plan ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Until {
    /// So long after the warm-up; groups arrive before that moment.
    #[serde(serialize_with = "super::seconds")]
    Seconds(Duration),
    /// So many items in all, those of the warm-up among them, rounded up to whole groups.
    Items(u64),
}

/// What arrives, and when.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PlanSettings {
    /// How groups arrive.
    pub arrivals: Arrivals,
    /// Members of every group, 1 to 65,536.
    pub group_size: u32,
    /// Distinct images, at least 1; groups take them in turn.
    pub images: usize,
    /// When the plan ends.
    pub until: Until,
    /// Items that arrive earlier than this are checked, but count in no latency.
    #[serde(rename = "warm_up_seconds", serialize_with = "super::seconds")]
    pub warm_up: Duration,
    /// Fewest words of a response, at least 1.
    pub least_words: usize,
    /// Most words of a response, at least `least_words` and at most 100,000.
    pub most_words: usize,
    /// Fixes every draw.
    pub seed: u64,
}

/// One item's arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Since the start.
    pub at: Duration,
    /// From 0, without gaps.
    pub item: u64,
    /// From 0, without gaps.
    pub group: u64,
    /// Of the group, from 0.
    pub member: u32,
    /// Below [`PlanSettings::images`]; the same for all members of a group.
    pub image: usize,
    /// Words of its response.
    pub words: usize,
}

/// Why settings make no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The rate is not above 0 and at most 1e7 items per second.
    Rate,
    /// A step has no groups, or no time lies between steps.
    Steps,
    /// Groups have no members, or more than 65,536.
    GroupSize,
    /// There are no images.
    Images,
    /// The range of words is empty, starts at 0 or ends above 100,000.
    Words,
    /// The plan ends before it starts.
    Until,
}

/// Arrivals in the order of time, fixed by the settings; holds no more than the next.
#[derive(Clone, Debug)]
pub struct Plan {
    settings: PlanSettings,
    gaps: ChaCha8Rng,
    words: ChaCha8Rng,
    group: u64,
    member: u32,
    /// Of the current group.
    at: Duration,
    /// Of the latest Poisson arrival, in seconds.
    poisson: f64,
}

// === impl PlanError ===

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rate => "the rate must be above 0 and at most 1e7 items per second",
            Self::Steps => "a step needs a group and time until the next",
            Self::GroupSize => "a group needs 1 to 65536 members",
            Self::Images => "at least one image is needed",
            Self::Words => "words must be a range within 1 to 100000",
            Self::Until => "the duration or the number of items must be above 0",
        })
    }
}

impl std::error::Error for PlanError {}

// === impl PlanSettings ===

impl PlanSettings {
    fn check(&self) -> Result<(), PlanError> {
        match self.arrivals {
            Arrivals::Poisson { rate_per_second: rate }
            | Arrivals::Even { rate_per_second: rate } => {
                // A rate that is no number fails both comparisons.
                let fits = rate > 0.0 && rate <= MOST_RATE;
                ensure(fits, PlanError::Rate)?;
            }
            Arrivals::Steps { groups, every } => {
                ensure(groups > 0 && !every.is_zero(), PlanError::Steps)?;
            }
        }
        ensure((1..=MOST_MEMBERS).contains(&self.group_size), PlanError::GroupSize)?;
        ensure(self.images > 0, PlanError::Images)?;
        let words = self.least_words..=self.most_words;
        let fits = !words.is_empty() && self.least_words > 0 && self.most_words <= MOST_WORDS;
        ensure(fits, PlanError::Words)?;
        let ends = match self.until {
            Until::Seconds(duration) => duration.is_zero(),
            Until::Items(items) => items == 0,
        };
        ensure(!ends, PlanError::Until)
    }

    /// Groups of a plan that counts items.
    fn groups(items: u64, group_size: u32) -> u64 {
        items.div_ceil(u64::from(group_size).max(1))
    }

    /// From the start to when the next group would arrive after the last, on average.
    pub(super) fn span(&self) -> Duration {
        let items = match self.until {
            Until::Seconds(duration) => return self.warm_up.saturating_add(duration),
            Until::Items(items) => items,
        };
        let groups = Self::groups(items, self.group_size);
        let seconds = match self.arrivals {
            Arrivals::Poisson { rate_per_second } | Arrivals::Even { rate_per_second } => {
                groups as f64 * f64::from(self.group_size) / rate_per_second
            }
            Arrivals::Steps { groups: size, every } => {
                groups.div_ceil(size.max(1) as u64) as f64 * every.as_secs_f64()
            }
        };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

// === impl Plan ===

impl Plan {
    /// Fails where the settings make no plan.
    pub fn try_new(settings: PlanSettings) -> Result<Self, PlanError> {
        settings.check()?;
        let draws = |stream| {
            let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
            rng.set_stream(stream);
            rng
        };
        // Moments and words never share bits, so that longer responses arrive no differently.
        let (gaps, words) = (draws(0), draws(1));
        let (at, poisson) = (Duration::ZERO, 0.0);
        Ok(Self { settings, gaps, words, group: 0, member: 0, at, poisson })
    }

    /// What it was made from.
    pub fn settings(&self) -> &PlanSettings {
        &self.settings
    }

    /// When the next group arrives, or `None` at the end.
    fn moment(&mut self) -> Option<Duration> {
        let at = match self.settings.arrivals {
            Arrivals::Poisson { rate_per_second } => {
                self.poisson += self.exponential() * self.group_seconds(rate_per_second);
                Duration::try_from_secs_f64(self.poisson).ok()?
            }
            Arrivals::Even { rate_per_second } => {
                let seconds = self.group as f64 * self.group_seconds(rate_per_second);
                Duration::try_from_secs_f64(seconds).ok()?
            }
            Arrivals::Steps { groups, every } => {
                let step = self.group / groups as u64;
                every.checked_mul(u32::try_from(step).ok()?)?
            }
        };
        let goes_on = match self.settings.until {
            Until::Seconds(duration) => at < self.settings.warm_up.saturating_add(duration),
            Until::Items(items) => {
                self.group < PlanSettings::groups(items, self.settings.group_size)
            }
        };
        goes_on.then_some(at)
    }

    fn group_seconds(&self, rate_per_second: f64) -> f64 {
        f64::from(self.settings.group_size) / rate_per_second
    }

    /// A draw with mean 1.
    fn exponential(&mut self) -> f64 {
        // 53 bits, in 0.0..1.0, so that the logarithm's argument is never 0.
        let unit = (self.gaps.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
        -(1.0 - unit).ln()
    }

    fn draw_words(&mut self) -> usize {
        let PlanSettings { least_words, most_words, .. } = self.settings;
        let range = (most_words - least_words + 1) as u64;
        least_words + ((u64::from(self.words.next_u32()) * range) >> 32) as usize
    }
}

impl Iterator for Plan {
    type Item = Arrival;

    fn next(&mut self) -> Option<Arrival> {
        if self.member == 0 {
            self.at = self.moment()?;
        }
        let (group, member) = (self.group, self.member);
        self.member += 1;
        if self.member == self.settings.group_size {
            self.member = 0;
            self.group += 1;
        }
        Some(Arrival {
            at: self.at,
            item: group * u64::from(self.settings.group_size) + u64::from(member),
            group,
            member,
            image: (group % self.settings.images as u64) as usize,
            words: self.draw_words(),
        })
    }
}

impl FusedIterator for Plan {}

fn ensure(holds: bool, error: PlanError) -> Result<(), PlanError> {
    if holds { Ok(()) } else { Err(error) }
}
