use serde::Serialize;

use super::{Fact, Scene, Truth, read_sentence};

/// What is false, true and neither in a text about a scene.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Statements {
    /// Sentences that the scene bears out.
    pub right: u32,
    /// Sentences that it does not.
    pub wrong: u32,
    /// Sentences on which people might disagree.
    pub unclear: u32,
    /// Sentences that claim nothing readable.
    pub unreadable: u32,
}

/// One sentence of a text, and how it stands to a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct JudgedSentence {
    /// Where it starts in the text, in bytes.
    pub start: usize,
    /// Where it ends, in bytes, without its full stop.
    pub end: usize,
    /// What kind of claim it makes; `None` where it claims nothing readable.
    pub claim: Option<&'static str>,
    /// Whether the scene bears it out; `None` where it claims nothing readable.
    pub truth: Option<Truth>,
}

/// Judges each sentence of a text, ended by full stops or lines, by what the scene is.
pub fn judged_sentences(scene: &Scene, text: &str) -> impl Iterator<Item = JudgedSentence> {
    let mut at = 0;
    text.split_inclusive(['.', '\n']).filter_map(move |piece| {
        let begin = at;
        at += piece.len();
        let said = piece.trim_end_matches(['.', '\n']);
        let trimmed = said.trim();
        let start = begin + said.len() - said.trim_start().len();
        let fact = (!trimmed.is_empty()).then(|| read_sentence(trimmed))?;
        Some(JudgedSentence {
            start,
            end: start + trimmed.len(),
            claim: fact.map(Fact::name),
            truth: fact.map(|fact| fact.truth(scene)),
        })
    })
}

/// Counts the sentences of a text by how they stand to a scene.
pub fn statements(scene: &Scene, text: &str) -> Statements {
    judged_sentences(scene, text).collect()
}

// === impl Statements ===

impl FromIterator<JudgedSentence> for Statements {
    fn from_iter<I: IntoIterator<Item = JudgedSentence>>(sentences: I) -> Self {
        let mut out = Self::default();
        for sentence in sentences {
            *match sentence.truth {
                Some(Truth::True) => &mut out.right,
                Some(Truth::False) => &mut out.wrong,
                Some(Truth::Unclear) => &mut out.unclear,
                None => &mut out.unreadable,
            } += 1;
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Split, example, question_example};
    use super::*;

    #[test]
    fn what_is_said_of_scenes_is_counted_by_its_truth() {
        for index in 0..100 {
            let scene = Scene::draw(Split::Test, 5, index);
            let captions = example(Split::Test, 5, index, 8);
            let answers = question_example(Split::Test, 5, index, 4);
            for item in captions.items.iter().chain(&answers.items) {
                let counts = statements(&scene, &item.text);
                assert_eq!(counts.wrong == 0, item.is_clean);
                assert_eq!((counts.unclear, counts.unreadable), (0, 0));
            }
        }
    }

    #[test]
    fn spans_hold_sentences_without_full_stops() {
        let scene = Scene::draw(Split::Test, 1, 0);
        let text = " There is a sign. Nönsense..\n\n There is no sign";
        let judged: Vec<_> = judged_sentences(&scene, text).collect();
        let said: Vec<_> = judged.iter().map(|s| &text[s.start..s.end]).collect();
        assert_eq!(said, ["There is a sign", "Nönsense", "There is no sign"]);
        assert_eq!(
            judged.iter().map(|s| s.claim).collect::<Vec<_>>(),
            [Some("sign"), None, Some("sign")]
        );
        let counts = statements(&scene, text);
        assert_eq!((counts.right, counts.wrong, counts.unreadable), (1, 1, 1));
        assert_eq!(statements(&scene, " .\n. "), Statements::default());
    }
}
