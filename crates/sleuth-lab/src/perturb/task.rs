use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::difference::{changed_words, word_count};
use crate::data::{Label, Record, Taxonomy};

/// The name of answers' edits in files, where captions' have their taxonomy's.
const ANSWER: &str = "answer";
/// An edit may change as many words as this share of the text has, or [`FEWEST_ALLOWED`].
const LARGEST_SHARE: f64 = 0.25;
const FEWEST_ALLOWED: usize = 6;

/// What is done to a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Edit {
    /// A caption is edited in a taxonomy.
    Caption(Taxonomy),
    /// An answer to a question becomes a wrong one.
    Answer,
}

/// What came of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// A text that is wrong in the way asked for.
    Kept(String),
    /// None.
    Dropped(Dropped),
}

/// Why an edit was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dropped {
    /// The model copied the text, as it may where the taxonomy does not apply.
    Unchanged,
    /// The edit is no small one: more than a quarter of the words (and more than six) changed, or
    /// the model talked.
    TooLarge,
    /// The reply stopped at the limit of tokens.
    Cut,
    /// The checker says that the edit is a paraphrase or of another kind.
    NotDifferent,
    /// The checker says that the answer is still right.
    StillValid,
    /// The checker answered neither yes nor no.
    CheckerUnclear,
}

// === impl Edit ===

impl Edit {
    /// The edits a record calls for: of a prompt that ends in a question mark, the answer's; else
    /// the caption's, in each of the taxonomies wanted.
    pub(super) fn of(record: &Record, taxonomies: &[Taxonomy]) -> Vec<Self> {
        if record.prompt.trim_end().ends_with('?') {
            vec![Self::Answer]
        } else {
            taxonomies.iter().copied().map(Self::Caption).collect()
        }
    }

    /// The taxonomy's name, or `answer`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Caption(taxonomy) => taxonomy.name(),
            Self::Answer => ANSWER,
        }
    }
}

impl fmt::Display for Edit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl From<Edit> for String {
    fn from(edit: Edit) -> Self {
        edit.name().to_owned()
    }
}

impl TryFrom<String> for Edit {
    type Error = crate::data::UnknownTaxonomy;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if name == ANSWER { Ok(Self::Answer) } else { Taxonomy::from_str(&name).map(Self::Caption) }
    }
}

// === impl Dropped ===

impl Dropped {
    /// The name used in files and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unchanged => "unchanged",
            Self::TooLarge => "too_large",
            Self::Cut => "cut",
            Self::NotDifferent => "not_different",
            Self::StillValid => "still_valid",
            Self::CheckerUnclear => "checker_unclear",
        }
    }
}

/// A reply as a text: without the space, and the quotation marks, that models put around it.
pub(super) fn cleaned<'a>(reply: &'a str, original: &str) -> &'a str {
    let reply = reply.trim();
    let bare = reply.strip_prefix('"').and_then(|r| r.strip_suffix('"'));
    match bare {
        Some(bare) if !original.starts_with('"') && !bare.contains('"') => bare.trim(),
        _ => reply,
    }
}

/// Whether an edit is a small one; else why it is dropped.
pub(super) fn sized(old: &str, new: &str) -> Result<(), Dropped> {
    let changed = changed_words(old, new).len();
    let (before, after) = (word_count(old), word_count(new));
    let allowed = ((before as f64 * LARGEST_SHARE) as usize).max(FEWEST_ALLOWED);
    match changed {
        0 => Err(Dropped::Unchanged),
        n if n > allowed || before.abs_diff(after) > allowed => Err(Dropped::TooLarge),
        _ => Ok(()),
    }
}

/// The first word of a checker's reply.
pub(super) fn yes_or_no(reply: &str) -> Option<bool> {
    let word: String =
        reply.trim_start().chars().take_while(|c| c.is_alphabetic()).collect::<String>();
    match word.to_lowercase().as_str() {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// The record of an edit that was kept; its labels name the model as their source.
pub(super) fn edited(record: &Record, edit: Edit, text: &str, model: &str) -> Record {
    let taxonomy = match edit {
        Edit::Caption(taxonomy) => Some(taxonomy.name().to_owned()),
        Edit::Answer => None,
    };
    let labels = changed_words(&record.response, text)
        .into_iter()
        .map(|span| Label {
            start: span.start(),
            end: span.end(),
            good: false,
            taxonomy: taxonomy.clone(),
            source: Some(model.to_owned()),
        })
        .collect();
    Record {
        id: format!("{}/{edit}", record.id),
        response: text.to_owned(),
        labels,
        ..record.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_named_as_files_have_them() {
        for edit in Taxonomy::ALL.map(Edit::Caption).into_iter().chain([Edit::Answer]) {
            let text = serde_json::to_string(&edit).unwrap();
            assert_eq!(text, format!("\"{edit}\""));
            assert_eq!(serde_json::from_str::<Edit>(&text).unwrap(), edit);
        }
        assert!(serde_json::from_str::<Edit>("\"other\"").is_err());
    }

    #[test]
    fn quotation_marks_around_a_reply_go_unless_the_text_has_them() {
        assert_eq!(cleaned(" \"A red car.\"\n", "A blue car."), "A red car.");
        assert_eq!(cleaned("\"Stop\" it says.", "\"Go\" it says."), "\"Stop\" it says.");
        assert_eq!(cleaned("\"Stop\" and \"go\"", "x"), "\"Stop\" and \"go\"");
    }

    #[test]
    fn copies_and_rewrites_are_dropped() {
        let old = "A small dog sits on a red sofa beside a lamp.";
        assert_eq!(sized(old, old), Err(Dropped::Unchanged));
        assert_eq!(sized(old, "A small dog sits on a blue sofa beside a lamp."), Ok(()));
        let talk = "Sure! Here is the caption that you asked me for, with one change made: a cat.";
        assert_eq!(sized(old, talk), Err(Dropped::TooLarge));
        assert_eq!(sized(old, "A dog"), Err(Dropped::TooLarge));
        assert_eq!(sized("red", "blue"), Ok(()));
    }

    #[test]
    fn a_checker_answers_by_its_first_word() {
        assert_eq!(yes_or_no("Yes."), Some(true));
        assert_eq!(yes_or_no(" NO, because"), Some(false));
        assert_eq!(yes_or_no("Note that"), None);
        assert_eq!(yes_or_no(""), None);
    }
}
