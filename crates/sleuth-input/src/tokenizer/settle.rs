//! Where a text that still grows may be cut: a boundary is settled when the tokens before it are
//! the same whatever follows.
//!
//! A text is cut between two characters `a` and `b` when no piece of the vocabulary and no added
//! token holds `ab`, and neither normaliser nor pre-tokeniser looks across. Whether that is so
//! depends on `a` and `b` alone, not on where they stand. What is not known for certain settles
//! nothing: the text then waits for its end.

use serde_json::Value;
use tokenizers::{AddedToken, Tokenizer};

use self::model::Joins;
use self::pairs::Pairs;
use self::steps::Steps;
use super::vocabulary::Reserved;

mod model;
mod pairs;
mod steps;

/// Which boundaries between two characters are settled.
#[derive(Debug)]
pub(super) struct Settlement {
    /// `None` for a tokenizer of which some part may look anywhere.
    rule: Option<Rule>,
}

#[derive(Debug)]
struct Rule {
    steps: Steps,
    joins: Joins,
}

// === impl Settlement ===

impl Settlement {
    pub(super) fn of(tokenizer: &Tokenizer, reserved: &Reserved) -> Self {
        Self { rule: Rule::of(tokenizer, reserved) }
    }

    /// Whether the tokens of a text that ends in `a` stay as they are when `b` and anything else
    /// follows.
    pub(super) fn settles(&self, a: char, b: char) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.settles(a, b))
    }

    /// Whether the tokens after a settled boundary are those of the text after it by itself.
    pub(super) fn restarts(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.joins.restarts() && !rule.steps.puts_in_front)
    }
}

// === impl Rule ===

impl Rule {
    fn of(tokenizer: &Tokenizer, reserved: &Reserved) -> Option<Self> {
        let added: Vec<&AddedToken> =
            tokenizer.get_added_vocabulary().get_added_tokens_decoder().values().collect();
        // These look at what stands around them.
        if added.iter().any(|token| token.single_word || token.lstrip || token.rstrip) {
            return None;
        }
        let mut steps = Steps::default();
        // Added tokens are looked for in the raw text. Reserved ones are not: should the model make
        // one, its text is cut inside that token, which crosses no settled boundary. Their pairs
        // cost nothing and keep their text in one place.
        let raw = added.iter().map(|token| token.content.as_str());
        steps.keep_together(Pairs::of(raw.chain(reserved.values().map(String::as_str))));
        steps.normalise(&serialised(tokenizer.get_normalizer())?)?;
        // What is put in front of a text would be put in front of these too.
        let normalised: Vec<&AddedToken> = added.into_iter().filter(|t| t.normalized).collect();
        if steps.puts_in_front && !normalised.is_empty() {
            return None;
        }
        let texts = normalised.iter().map(|token| steps.replaced(&token.content));
        steps.keep_together(Pairs::of(texts.collect::<Vec<String>>().iter().map(String::as_str)));
        steps.pre_tokenise(&serialised(tokenizer.get_pre_tokenizer())?)?;
        Some(Self { steps, joins: Joins::of(tokenizer.get_model())? })
    }

    fn settles(&self, a: char, b: char) -> bool {
        let Some(seen) = self.steps.between(a, b) else { return false };
        self.joins.settles(seen.before, seen.after, seen.is_split)
    }
}

/// A part of the tokenizer as `tokenizer.json` would hold it, in the form that this version of the
/// library writes: files leave fields out or use older names.
fn serialised<T: serde::Serialize>(part: Option<&T>) -> Option<Value> {
    part.map_or(Some(Value::Null), |part| serde_json::to_value(part).ok())
}

#[cfg(test)]
mod tests;
