use sleuth_core::ByteSpan;

use super::dice::{Dice, Purpose};
use super::fact::{Counted, Fact};
use super::perturb::falsify;
use super::plan::{Caption, TAXONOMIES, Teller, in_reading_order, leaves_room, touch};
use super::sentence::{Sentence, Words, append, changed};
use super::{Scene, SignWord, Split};
use crate::data::{Label, Taxonomy};

/// The prompt of every caption.
pub const CAPTION_PROMPT: &str = "Describe the image.";
/// What labels of this module name as their source.
pub const SOURCE: &str = "scenes";

/// How often a perturbed caption is edited in a second sentence too, where that can be.
const SECOND_EDIT: f32 = 0.2;
/// How often a caption equal to an earlier one is drawn anew before it is let pass.
const REDRAWS: usize = 8;
/// Draws after which a caption is built around another taxonomy: no scene was seen to need it.
const MOST_DRAWS: usize = 400;

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
    /// Texts with equal prompts, in random order.
    pub items: Vec<Response>,
}

/// A sentence as it stands in a response, and what became of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) sentence: Sentence,
    pub(super) edit: Option<Edit>,
}

/// How a sentence became false.
#[derive(Clone, Copy, Debug)]
pub(super) struct Edit {
    pub(super) taxonomy: Taxonomy,
    /// What it was; `None` where it was put in whole.
    pub(super) original: Option<Sentence>,
}

/// A response before it is put into words.
pub(super) type Draft = Vec<Said>;

/// Captions of scene `index`: `responses` of them behind [`CAPTION_PROMPT`], half of them perturbed
/// (where odd, every other scene has one more of those). Over scenes, the taxonomies take turns
/// among the perturbed captions, and so are equally many.
///
/// Equal arguments give equal examples.
pub fn example(split: Split, seed: u64, index: u64, responses: usize) -> SceneExample {
    let scene = Scene::draw(split, seed, index);
    let mut dice = Dice::new(split, Purpose::Captions, seed, index);
    let items = drafts(&scene, &mut dice, index, responses)
        .iter()
        .map(|draft| worded(CAPTION_PROMPT.to_owned(), draft))
        .collect();
    SceneExample { scene, items }
}

/// True captions of scene `index`.
pub fn clean_example(split: Split, seed: u64, index: u64, responses: usize) -> SceneExample {
    let scene = Scene::draw(split, seed, index);
    let mut dice = Dice::new(split, Purpose::CleanCaptions, seed, index);
    let mut seen = Vec::with_capacity(responses);
    let items = (0..responses)
        .map(|_| {
            let focus = TAXONOMIES[dice.below(TAXONOMIES.len())];
            let draft = caption(&scene, &mut dice, focus, false, &mut seen);
            worded(CAPTION_PROMPT.to_owned(), &draft)
        })
        .collect();
    SceneExample { scene, items }
}

/// Answers to one question about scene `index`: `responses` of them, half of them wrong (where odd,
/// every other scene has one more of those). The same answer may come more than once. The
/// taxonomies take turns over scenes.
///
/// Equal arguments give equal examples.
pub fn question_example(split: Split, seed: u64, index: u64, responses: usize) -> SceneExample {
    asked(split, seed, index, &truths(index, responses))
}

/// True answers to one question about scene `index`.
pub fn clean_question_example(
    split: Split,
    seed: u64,
    index: u64,
    responses: usize,
) -> SceneExample {
    asked(split, seed, index, &vec![true; responses])
}

fn asked(split: Split, seed: u64, index: u64, truths: &[bool]) -> SceneExample {
    let scene = Scene::draw(split, seed, index);
    let mut dice = Dice::new(split, Purpose::Questions, seed, index);
    let (asked, drafts) = answers(&scene, &mut dice, index, truths);
    let mut prompt = String::new();
    append(&mut prompt, &asked, '?');
    let items = drafts.iter().map(|draft| worded(prompt.clone(), draft)).collect();
    SceneExample { scene, items }
}

/// For each of `n` responses, whether it is true.
fn truths(index: u64, n: usize) -> Vec<bool> {
    let clean = usize::midpoint(n, (index % 2) as usize);
    (0..n).map(|i| i < clean).collect()
}

pub(super) fn drafts(scene: &Scene, dice: &mut Dice, index: u64, n: usize) -> Vec<Draft> {
    let truths = truths(index, n);
    let perturbed = truths.iter().filter(|t| !**t).count();
    // What earlier scenes of this call's kind took, so that turns go on from scene to scene.
    let before = (index as usize * n) / 2;
    let mut seen = Vec::with_capacity(n);
    let mut out: Vec<Draft> = (0..n)
        .map(|slot| {
            let turn = if truths[slot] { slot + perturbed } else { slot - (n - perturbed) };
            let focus = TAXONOMIES[(before + turn) % TAXONOMIES.len()];
            caption(scene, dice, focus, !truths[slot], &mut seen)
        })
        .collect();
    dice.shuffle(&mut out);
    out
}

/// A caption around `focus`, edited in it if so wished. Without a sign, what a sign says is put in
/// whole.
fn caption(
    scene: &Scene,
    dice: &mut Dice,
    focus: Taxonomy,
    perturb: bool,
    seen: &mut Vec<Vec<Fact>>,
) -> Draft {
    let unsigned = focus == Taxonomy::TextOcr && scene.sign.is_none();
    for draw in 0..MOST_DRAWS {
        let around = match (unsigned, draw < MOST_DRAWS / 2) {
            (false, true) => focus,
            _ => TAXONOMIES[dice.below(TAXONOMIES.len())],
        };
        let Some(sentences) = Teller::new(scene, dice).caption(around) else { continue };
        let facts: Vec<Fact> = sentences.iter().map(|s| s.fact).collect();
        if seen.contains(&facts) && draw < REDRAWS {
            continue;
        }
        let draft = match (perturb, unsigned) {
            (false, _) => Some(told(&sentences, &[], None, dice)),
            (true, true) => with_sign(scene, sentences, dice),
            (true, false) => edited(scene, &sentences, around, dice),
        };
        if let Some(draft) = draft {
            seen.push(facts);
            return draft;
        }
    }
    // Every scene has a count of its objects, which is true, and false with another number.
    counted(scene, perturb)
}

/// Edits the first sentence, and sometimes another in the same taxonomy.
fn edited(scene: &Scene, said: &Caption, taxonomy: Taxonomy, dice: &mut Dice) -> Option<Draft> {
    let mut now: Vec<Fact> = said.iter().map(|s| s.fact).collect();
    let mut edits: Vec<Option<Sentence>> = vec![None; said.len()];
    let wanted = if dice.chance(SECOND_EDIT) { said.len() } else { 1 };
    let mut made = 0;
    for i in 0..wanted {
        let fits = |fact: Fact| {
            let mut after = now.clone();
            after[i] = fact;
            let others = || now.iter().enumerate().filter(|(j, _)| *j != i);
            others().all(|(_, other)| !touch(fact, *other)) && leaves_room(&after)
        };
        if i > 0 && !fits(now[i]) {
            continue;
        }
        if let Some(fact) = falsify(now[i], taxonomy, scene, dice, fits) {
            edits[i] = Some(Sentence { fact, ..said[i] });
            now[i] = fact;
            made += 1;
        }
        if made == 2 || made == 0 {
            break;
        }
    }
    (made > 0).then(|| told(said, &edits, Some(taxonomy), dice))
}

/// Puts in a sentence about a sign that is not there.
fn with_sign(scene: &Scene, mut sentences: Caption, dice: &mut Dice) -> Option<Draft> {
    let fact = Fact::Written(SignWord::draw(dice));
    if scene.sign.is_some() || sentences.iter().any(|s| touch(s.fact, fact)) {
        return None;
    }
    let inserted = Teller::new(scene, dice).worded(fact);
    if sentences.len() > 2 {
        sentences.pop();
    }
    let mut draft = told(&sentences, &[], None, dice);
    let at = dice.below(draft.len() + 1);
    let edit = Some(Edit { taxonomy: Taxonomy::TextOcr, original: None });
    draft.insert(at, Said { sentence: inserted, edit });
    Some(draft)
}

fn counted(scene: &Scene, perturb: bool) -> Draft {
    let number = scene.objects.len() as u8;
    let count = |number| {
        let fact = Fact::Count { what: Counted::Objects, number };
        Sentence { fact, wording: 0 }
    };
    let edit = Edit { taxonomy: Taxonomy::Counting, original: Some(count(number)) };
    let said = if perturb { count(if number > 2 { number - 1 } else { 3 }) } else { count(number) };
    vec![Said { sentence: said, edit: perturb.then_some(edit) }]
}

fn told(
    caption: &Caption,
    edits: &[Option<Sentence>],
    taxonomy: Option<Taxonomy>,
    dice: &mut Dice,
) -> Draft {
    in_reading_order(caption, dice)
        .into_iter()
        .map(|i| {
            let original = caption[i];
            match (edits.get(i).copied().flatten(), taxonomy) {
                (Some(sentence), Some(taxonomy)) => {
                    Said { sentence, edit: Some(Edit { taxonomy, original: Some(original) }) }
                }
                _ => Said { sentence: original, edit: None },
            }
        })
        .collect()
}

/// The words of a question, and an answer for each of `truths`.
pub(super) fn answers(
    scene: &Scene,
    dice: &mut Dice,
    index: u64,
    truths: &[bool],
) -> (Words, Vec<Draft>) {
    // Every fourth index, and all of them, go through every taxonomy.
    let turn = (index + index / 4) as usize % TAXONOMIES.len();
    let unsigned = scene.sign.is_none() && TAXONOMIES[turn] == Taxonomy::TextOcr;
    let mut draws = 0;
    let (truth, taxonomy, question) = loop {
        draws += 1;
        let taxonomy = if draws < MOST_DRAWS { TAXONOMIES[turn] } else { Taxonomy::Counting };
        let Some(truth) = Teller::new(scene, dice).answer(taxonomy) else { continue };
        if unsigned && draws == 1 {
            break (truth, taxonomy, vec!["what", "does", "the", "sign", "say"]);
        }
        let Some(question) = truth.question() else { continue };
        if falsify(truth.fact, taxonomy, scene, dice, same_question(&question)).is_some() {
            break (truth, taxonomy, question);
        }
    };
    let mut drafts: Vec<Draft> = truths
        .iter()
        .map(|&clean| {
            let original = Teller::new(scene, dice).answering(truth.fact);
            let wrong = if unsigned {
                Some(Fact::Written(SignWord::draw(dice)))
            } else {
                falsify(truth.fact, taxonomy, scene, dice, same_question(&question))
            };
            let said = match wrong.filter(|_| !clean) {
                Some(fact) if unsigned => Said {
                    sentence: Sentence { fact, wording: 1 },
                    edit: Some(Edit { taxonomy, original: None }),
                },
                Some(fact) => Said {
                    sentence: Sentence { fact, ..original },
                    edit: Some(Edit { taxonomy, original: Some(original) }),
                },
                None => Said { sentence: original, edit: None },
            };
            vec![said]
        })
        .collect();
    dice.shuffle(&mut drafts);
    (question, drafts)
}

/// Whether a claim answers this question.
fn same_question(asked: &Words) -> impl Fn(Fact) -> bool {
    let asked = asked.clone();
    move |fact| Sentence { fact, wording: 0 }.question().is_some_and(|q| q == asked)
}

/// Puts a draft into words and finds the changed ones.
pub(super) fn worded(prompt: String, draft: &Draft) -> Response {
    let mut text = String::with_capacity(160);
    let mut labels = Vec::new();
    for said in draft {
        let words = said.sentence.words();
        let spans = append(&mut text, &words, '.');
        if let Some(Edit { taxonomy, original }) = said.edit {
            let marks = original.map_or_else(
                || vec![true; words.len()],
                |original| changed(&original.words(), &words),
            );
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
mod blind;

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
                if let Some(Edit { original: Some(original), .. }) = said.edit {
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
                check(&scene, &drafts(&scene, &mut dice, index, 6));
                let (_, answers) = answers(&scene, &mut dice, index, &truths(index, 4));
                check(&scene, &answers);
            }
        }
    }

    #[test]
    fn removing_the_edits_gives_the_clean_text_back() {
        for index in 0..300 {
            let scene = Scene::draw(Split::Test, 4, index);
            let mut dice = Dice::new(Split::Test, Purpose::Captions, 4, index);
            for draft in drafts(&scene, &mut dice, index, 4) {
                let edited = worded(String::new(), &draft);
                let original: Draft = draft
                    .iter()
                    .filter_map(|s| match s.edit {
                        Some(edit) => edit.original,
                        None => Some(s.sentence),
                    })
                    .map(|sentence| Said { sentence, edit: None })
                    .collect();
                let clean = worded(String::new(), &original);
                assert_eq!(edited.is_clean, edited.text == clean.text);
                // What no label covers also stands in the clean text, in order.
                let bad = |at: usize| {
                    edited.labels.iter().any(|l| l.start as usize <= at && at < l.end as usize)
                };
                let kept: String =
                    edited.text.char_indices().map(|(i, c)| if bad(i) { ' ' } else { c }).collect();
                let mut rest = clean.text.split([' ', '.', ',']);
                for word in kept.split([' ', '.', ',']).filter(|w| !w.is_empty()) {
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
    fn captions_have_two_to_five_sentences_and_thirty_tokens_on_average() {
        let (mut tokens, mut captions) = (0, 0);
        for index in 0..500 {
            for item in example(Split::Train, 1, index, 4).items {
                let words = item.text.split(' ').count();
                let marks = item.text.matches(['.', ',']).count();
                assert!((5..=56).contains(&words), "{words}: {}", item.text);
                let sentences = item.text.matches('.').count();
                assert!((2..=5).contains(&sentences), "{}", item.text);
                tokens += words + marks;
                captions += 1;
            }
        }
        let mean = tokens as f32 / captions as f32;
        assert!((30.0..42.0).contains(&mean), "{mean}");
    }

    #[test]
    fn taxonomies_take_turns_exactly() {
        for responses in [2, 4, 8, 12] {
            let mut counts = std::collections::BTreeMap::<String, usize>::new();
            for index in 0..800 {
                for item in example(Split::Validation, 1, index, responses).items {
                    let names: std::collections::BTreeSet<_> =
                        item.labels.iter().filter_map(|l| l.taxonomy.clone()).collect();
                    assert!(names.len() <= 1 && names.is_empty() == item.is_clean);
                    for name in names {
                        *counts.entry(name).or_default() += 1;
                    }
                }
            }
            assert_eq!(counts.len(), TAXONOMIES.len(), "{counts:?}");
            assert!(counts.values().all(|&n| n == 50 * responses), "{responses}: {counts:?}");
        }
    }

    #[test]
    fn clean_examples_are_clean_and_of_the_same_scene() {
        for index in 0..100 {
            let clean = clean_example(Split::Train, 2, index, 6);
            assert!(clean.items.iter().all(|i| i.is_clean));
            assert_eq!(clean.scene, example(Split::Train, 2, index, 2).scene);
            let asked = clean_question_example(Split::Train, 2, index, 3);
            assert!(asked.items.iter().all(|i| i.is_clean));
            assert_eq!(
                asked.items[0].prompt,
                question_example(Split::Train, 2, index, 2).items[0].prompt
            );
        }
    }
}
