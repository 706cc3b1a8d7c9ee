use std::collections::{HashMap, HashSet};

use sleuth_core::changes;

use crate::data::Record;
use crate::scenes::{NotAScene, Scene, Statements, read_sentence, statements};

/// Knows what is true of a folder's scenes.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    /// True sentences by group.
    truths: HashMap<String, HashSet<String>>,
}

/// What a correction made of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// The response as it came.
    pub before: Statements,
    /// The response to use.
    pub after: Statements,
    /// How they compare.
    pub fate: Fate,
    /// Whether words were only left out.
    pub is_deletion: bool,
}

/// How a correction compares with what came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// Nothing was changed.
    Unchanged,
    /// Fewer false statements.
    Win,
    /// As many.
    Tie,
    /// More.
    Loss,
}

// === impl Judge ===

impl Judge {
    /// Nothing known so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of what a clean record says.
    pub fn learn(&mut self, record: &Record) {
        if let (Some(group), true) = (&record.group_id, record.is_clean()) {
            let truths = self.truths.entry(group.clone()).or_default();
            truths.extend(sentences(&record.response).map(normal));
        }
    }

    /// Judges what became of a record's response.
    pub fn judge(&self, record: &Record, corrected: &str) -> Result<Judgement, NotAScene> {
        let before = self.said(record, &record.response)?;
        let after = self.said(record, corrected)?;
        let fate = match false_statements(after).cmp(&false_statements(before)) {
            _ if record.response == corrected => Fate::Unchanged,
            std::cmp::Ordering::Less => Fate::Win,
            std::cmp::Ordering::Equal => Fate::Tie,
            std::cmp::Ordering::Greater => Fate::Loss,
        };
        let is_deletion = fate != Fate::Unchanged && only_deletes(&record.response, corrected);
        Ok(Judgement { before, after, fate, is_deletion })
    }

    /// Counts what a text says of a record's scene.
    pub fn said(&self, record: &Record, text: &str) -> Result<Statements, NotAScene> {
        let scene = Scene::of_group(record.group_id.as_deref().unwrap_or_default())?;
        let mut counts = statements(&scene, text);
        let known = sentences(text)
            .filter(|sentence| read_sentence(sentence).is_none() && self.knows(record, sentence))
            .count();
        let known = u32::try_from(known).unwrap_or(u32::MAX);
        counts.unreadable = counts.unreadable.saturating_sub(known);
        counts.right += known;
        Ok(counts)
    }

    fn knows(&self, record: &Record, sentence: &str) -> bool {
        let group = record.group_id.as_ref().and_then(|group| self.truths.get(group));
        group.is_some_and(|truths| truths.contains(&normal(sentence)))
    }
}

/// False statements, unreadable ones included.
pub(super) const fn false_statements(counts: Statements) -> u32 {
    counts.wrong + counts.unreadable
}

/// Whether every change takes words out and puts none in; the capital that then begins the sentence
/// is none.
fn only_deletes(before: &str, after: &str) -> bool {
    changes(&before.to_lowercase(), &after.to_lowercase()).iter().all(|change| {
        !after.to_lowercase()[change.after.range()].chars().any(char::is_alphanumeric)
    })
}

fn sentences(text: &str) -> impl Iterator<Item = &str> {
    text.split(['.', '\n']).filter(|sentence| !sentence.trim().is_empty())
}

fn normal(sentence: &str) -> String {
    sentence.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::Label;
    use crate::scenes::{Fact, Split, example};

    fn record(response: &str, labels: Vec<Label>) -> Record {
        Record {
            id: "r".to_owned(),
            image: "i.png".to_owned(),
            prompt: "?".to_owned(),
            response: response.to_owned(),
            labels,
            group_id: Some("test-7-3-caption".to_owned()),
            split: None,
        }
    }

    /// A true and a false sentence about the scene, and the same caption with and without.
    fn said() -> (String, String) {
        let scene = Scene::draw(Split::Test, 7, 3);
        let count = scene.objects.len();
        let names = ["zero", "one", "two", "three", "four", "five", "six"];
        let right = format!("There are {} objects.", names[count]);
        let wrong = format!("There are {} objects.", names[if count == 6 { 5 } else { count + 1 }]);
        assert!(matches!(read_sentence(&right), Some(Fact::Count { .. })));
        (right, wrong)
    }

    #[test]
    fn fates_follow_the_number_of_false_statements() {
        let (right, wrong) = said();
        let judge = Judge::new();
        let fate = |before: &str, after: &str| {
            let judgement = judge.judge(&record(before, Vec::new()), after).unwrap();
            (judgement.fate, judgement.is_deletion)
        };
        assert_eq!(fate(&wrong, &right), (Fate::Win, false));
        assert_eq!(fate(&right, &wrong), (Fate::Loss, false));
        assert_eq!(fate(&wrong, &wrong), (Fate::Unchanged, false));
        assert_eq!(fate(&wrong, "There are many objects."), (Fate::Tie, false));
        let both = format!("{right} {wrong}");
        assert_eq!(fate(&both, &right), (Fate::Win, true), "a deletion is told apart");
        assert_eq!(fate(&both, &wrong), (Fate::Tie, true), "taking the true one out helps nobody");
        assert_eq!(fate(&right, "Blah."), (Fate::Loss, false), "nonsense is false");
    }

    #[test]
    fn an_unreadable_sentence_is_true_where_a_true_response_says_it() {
        let (right, wrong) = said();
        let mut judge = Judge::new();
        let odd = "It is all rather pretty.";
        let repaired = format!("{right} {odd}");
        let fate =
            |judge: &Judge| judge.judge(&record(&wrong, Vec::new()), &repaired).unwrap().fate;
        assert_eq!(fate(&judge), Fate::Tie);
        judge.learn(&record(odd, Vec::new()));
        assert_eq!(fate(&judge), Fate::Win);
    }

    #[test]
    fn edits_of_the_test_split_are_undone_by_their_clean_captions() {
        let judge = Judge::new();
        let items = example(Split::Test, 7, 3, 8).items;
        for item in items.iter().filter(|item| !item.is_clean) {
            let record = record(&item.text, item.labels.clone());
            let clean = items.iter().find(|other| other.is_clean).unwrap();
            let judgement = judge.judge(&record, &clean.text).unwrap();
            assert_eq!(judgement.fate, Fate::Win);
            assert_eq!((judgement.after.wrong, judgement.after.unreadable), (0, 0));
        }
    }

    #[test]
    fn a_record_of_something_else_is_refused() {
        for group in [None, Some("photos"), Some("test-1-x-caption"), Some("test-1-2")] {
            let record =
                Record { group_id: group.map(str::to_owned), ..record("A cat.", Vec::new()) };
            let refused = Judge::new().judge(&record, "A dog.");
            assert_eq!(refused, Err(NotAScene(group.unwrap_or_default().to_owned())));
        }
    }
}
