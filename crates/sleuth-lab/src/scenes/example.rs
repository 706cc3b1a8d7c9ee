use sleuth_core::ByteSpan;

use super::dice::{Dice, Purpose};
use super::fact::Fact;
use super::perturb::falsify;
use super::plan::{Caption, TAXONOMIES, Teller, in_reading_order};
use super::sentence::{Sentence, append, changed};
use super::{Scene, Split};
use crate::data::{Label, Taxonomy};

/// The prompt of every caption.
pub const CAPTION_PROMPT: &str = "Describe the image.";
/// What labels of this module name as their source.
pub const SOURCE: &str = "scenes";

/// How often a perturbed caption has a second edit, in another sentence.
const SECOND_EDIT: f32 = 0.2;
/// How often a caption equal to an earlier one is drawn anew before it is let pass.
const REDRAWS: usize = 8;

/// A text about a scene, with what is false in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// What was asked.
    pub prompt: String,
    /// What was answered.
    pub text: String,
    /// The false words, one label per word, in order; none where the text is true.
    pub labels: Vec<Label>,
    /// Whether all of it is true.
    pub is_clean: bool,
}

/// A scene and texts about it that share one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct SceneExample {
    /// The scene.
    pub scene: Scene,
    /// Texts with equal prompts: half clean, half perturbed, in random order.
    pub items: Vec<Response>,
}

/// A sentence as it stands in a response, and what it was before an edit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) sentence: Sentence,
    pub(super) edit: Option<(Sentence, Taxonomy)>,
}

/// A response before it is put into words.
pub(super) type Draft = Vec<Said>;

/// Captions of scene `index`: `responses` of them behind [`CAPTION_PROMPT`], each from a clean
/// caption of its own, half of them perturbed (where odd, a coin decides the last).
///
/// Equal arguments give equal examples.
pub fn example(split: Split, seed: u64, index: u64, responses: usize) -> SceneExample {
    let scene = Scene::draw(split, seed, index);
    let mut dice = Dice::new(split, Purpose::Captions, seed, index);
    let items = drafts(&scene, &mut dice, responses)
        .iter()
        .map(|draft| worded(CAPTION_PROMPT.to_owned(), draft))
        .collect();
    SceneExample { scene, items }
}

/// Answers to one question about scene `index`: `responses` of them, half of them wrong (where
/// odd, a coin decides the last). The same answer may come more than once.
///
/// Equal arguments give equal examples.
pub fn question_example(split: Split, seed: u64, index: u64, responses: usize) -> SceneExample {
    let scene = Scene::draw(split, seed, index);
    let mut dice = Dice::new(split, Purpose::Questions, seed, index);
    let (asked, drafts) = answers(&scene, &mut dice, responses);
    let mut prompt = String::new();
    append(&mut prompt, &asked.question().unwrap_or_default(), '?');
    let items = drafts.iter().map(|draft| worded(prompt.clone(), draft)).collect();
    SceneExample { scene, items }
}

/// Which of `n` responses stay clean.
fn clean_flags(n: usize, dice: &mut Dice) -> Vec<bool> {
    let clean = n / 2 + usize::from(n % 2 == 1 && dice.chance(0.5));
    let mut flags: Vec<bool> = (0..n).map(|i| i < clean).collect();
    dice.shuffle(&mut flags);
    flags
}

pub(super) fn drafts(scene: &Scene, dice: &mut Dice, n: usize) -> Vec<Draft> {
    let mut seen: Vec<Vec<Fact>> = Vec::with_capacity(n);
    let mut out = Vec::with_capacity(n);
    for clean in clean_flags(n, dice) {
        let mut tries = 0;
        loop {
            tries += 1;
            let caption = Teller::new(scene, dice).caption();
            let facts: Vec<Fact> = caption.iter().map(|(s, _)| s.fact).collect();
            if seen.contains(&facts) && tries < REDRAWS {
                continue;
            }
            let draft = if clean {
                Some(told(&caption, &[], dice))
            } else {
                perturbed(scene, &caption, dice)
            };
            // Every scene has a count, which always has a false edit, so this ends.
            if let Some(draft) = draft {
                seen.push(facts);
                out.push(draft);
                break;
            }
        }
    }
    out
}

/// Edits the caption's first entry, and sometimes one more.
fn perturbed(scene: &Scene, caption: &Caption, dice: &mut Dice) -> Option<Draft> {
    let mut edits: Vec<Option<Sentence>> = vec![None; caption.len()];
    let wanted = if dice.chance(SECOND_EDIT) { 2 } else { 1 };
    let mut made = 0;
    for (edit, (sentence, taxonomy)) in edits.iter_mut().zip(caption) {
        if made == wanted {
            break;
        }
        if let Some(fact) = falsify(sentence.fact, *taxonomy, scene, dice, |_| true) {
            *edit = Some(Sentence { fact, ..*sentence });
            made += 1;
        }
    }
    (made > 0).then(|| told(caption, &edits, dice))
}

fn told(caption: &Caption, edits: &[Option<Sentence>], dice: &mut Dice) -> Draft {
    in_reading_order(caption, dice)
        .into_iter()
        .map(|i| {
            let (original, taxonomy) = caption[i];
            match edits.get(i).copied().flatten() {
                Some(sentence) => Said { sentence, edit: Some((original, taxonomy)) },
                None => Said { sentence: original, edit: None },
            }
        })
        .collect()
}

/// A question, as the true sentence that answers it, and answers to it.
pub(super) fn answers(scene: &Scene, dice: &mut Dice, n: usize) -> (Sentence, Vec<Draft>) {
    let (truth, taxonomy) = loop {
        let taxonomy = TAXONOMIES[dice.below(TAXONOMIES.len())];
        let Some(truth) = Teller::new(scene, dice).answer(taxonomy) else { continue };
        // Every scene has a count, which always has a false answer, so this ends.
        if falsify(truth.fact, taxonomy, scene, dice, same_question(&truth)).is_some() {
            break (truth, taxonomy);
        }
    };
    let mut drafts = Vec::with_capacity(n);
    for clean in clean_flags(n, dice) {
        let original = Teller::new(scene, dice).answering(truth.fact);
        let wrong = falsify(truth.fact, taxonomy, scene, dice, same_question(&truth));
        drafts.push(vec![match wrong.filter(|_| !clean) {
            Some(fact) => {
                Said { sentence: Sentence { fact, ..original }, edit: Some((original, taxonomy)) }
            }
            None => Said { sentence: original, edit: None },
        }]);
    }
    (truth, drafts)
}

/// Whether a claim answers the same question as `truth`.
fn same_question(truth: &Sentence) -> impl Fn(Fact) -> bool {
    let asked = truth.question();
    move |fact| Sentence { fact, wording: 0 }.question() == asked
}

/// Puts a draft into words and finds the changed ones.
fn worded(prompt: String, draft: &Draft) -> Response {
    let mut text = String::with_capacity(160);
    let mut labels = Vec::new();
    for said in draft {
        let words = said.sentence.words();
        let spans = append(&mut text, &words, '.');
        if let Some((original, taxonomy)) = said.edit {
            let marks = changed(&original.words(), &words);
            let bad = spans.into_iter().zip(marks).filter(|(_, mark)| *mark);
            labels.extend(bad.map(|(span, _)| bad_word(span, taxonomy)));
        }
    }
    let is_clean = labels.is_empty();
    Response { prompt, text, labels, is_clean }
}

fn bad_word(span: ByteSpan, taxonomy: Taxonomy) -> Label {
    Label {
        start: span.start(),
        end: span.end(),
        good: false,
        taxonomy: Some(taxonomy.name().to_owned()),
        source: Some(SOURCE.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Truth;
    use super::*;

    fn word_at(text: &str, label: &Label) -> bool {
        let bytes = text.as_bytes();
        let (start, end) = (label.start as usize, label.end as usize);
        let outside = |b: Option<&u8>| b.is_none_or(|b| !b.is_ascii_alphabetic());
        text.get(start..end).is_some_and(|w| w.bytes().all(|b| b.is_ascii_alphabetic()))
            && end > start
            && outside(start.checked_sub(1).and_then(|i| bytes.get(i)))
            && outside(bytes.get(end))
    }

    fn check(scene: &Scene, drafts: &[Draft]) {
        for draft in drafts {
            for said in draft {
                let expected = if said.edit.is_some() { Truth::False } else { Truth::True };
                assert_eq!(said.sentence.fact.truth(scene), expected, "{said:?} of {scene:?}");
                assert!(said.sentence.fact.is_allowed(scene.split), "{said:?}");
                if let Some((original, _)) = said.edit {
                    assert_eq!(original.fact.truth(scene), Truth::True, "{said:?} of {scene:?}");
                }
            }
            let response = worded(String::new(), draft);
            assert_eq!(response.is_clean, draft.iter().all(|s| s.edit.is_none()));
            assert!(response.labels.iter().all(|l| word_at(&response.text, l)), "{response:?}");
        }
    }

    #[test]
    fn clean_claims_are_true_and_edited_ones_false() {
        for split in Split::ALL {
            for index in 0..700 {
                let scene = Scene::draw(split, 3, index);
                let mut dice = Dice::new(split, Purpose::Captions, 3, index);
                check(&scene, &drafts(&scene, &mut dice, 6));
                let (truth, answers) = answers(&scene, &mut dice, 4);
                assert_eq!(truth.fact.truth(&scene), Truth::True);
                check(&scene, &answers);
            }
        }
    }

    #[test]
    fn removing_the_edits_gives_the_clean_text_back() {
        for index in 0..300 {
            let scene = Scene::draw(Split::Test, 4, index);
            let mut dice = Dice::new(Split::Test, Purpose::Captions, 4, index);
            for draft in drafts(&scene, &mut dice, 4) {
                let edited = worded(String::new(), &draft);
                let original: Draft = draft
                    .iter()
                    .map(|s| Said { sentence: s.edit.map_or(s.sentence, |e| e.0), edit: None })
                    .collect();
                let clean = worded(String::new(), &original);
                assert_eq!(edited.is_clean, edited.text == clean.text);
                // What no label covers also stands in the clean text, in order.
                let bad = |at: usize| {
                    edited.labels.iter().any(|l| l.start as usize <= at && at < l.end as usize)
                };
                let kept: String =
                    edited.text.char_indices().map(|(i, c)| if bad(i) { ' ' } else { c }).collect();
                let mut rest = clean.text.split([' ', '.']);
                for word in kept.split([' ', '.']).filter(|w| !w.is_empty()) {
                    assert!(rest.any(|w| w == word), "{word} of {} | {}", edited.text, clean.text);
                }
            }
        }
    }

    #[test]
    fn examples_are_equal_for_equal_arguments_and_half_clean() {
        let one = example(Split::Train, 9, 5, 8);
        assert_eq!(one, example(Split::Train, 9, 5, 8));
        assert_eq!(one.items.iter().filter(|r| r.is_clean).count(), 4);
        assert!(one.items.iter().all(|r| r.prompt == CAPTION_PROMPT));
        let asked = question_example(Split::Train, 9, 5, 4);
        assert_eq!(asked, question_example(Split::Train, 9, 5, 4));
        assert!(asked.items.iter().all(|r| r.prompt == asked.items[0].prompt));
        assert!(asked.items[0].prompt.ends_with('?'));
    }

    #[test]
    fn captions_are_neither_short_nor_long() {
        for index in 0..500 {
            for item in example(Split::Train, 1, index, 4).items {
                let words = item.text.split(' ').count();
                assert!((10..=36).contains(&words), "{words}: {}", item.text);
                let sentences = item.text.matches('.').count();
                assert!((2..=4).contains(&sentences), "{}", item.text);
            }
        }
    }
}
