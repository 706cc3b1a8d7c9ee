use serde::{Deserialize, Serialize};

use super::dice::{Dice, Purpose};
use super::example::{CAPTION_PROMPT, Draft, Edit, Said, SceneExample, worded};
use super::fact::Fact;
use super::perturb::falsify;
use super::plan::{TAXONOMIES, Teller, in_reading_order};
use super::sentence::Sentence;
use super::{Scene, SignWord, Split};
use crate::data::Taxonomy;

/// How often a caption of a scene without a sign says what one says.
const SIGNS_PUT_IN: f32 = 0.1;
/// Draws of a caption's first sentence before one of a count is taken, which every scene has.
const MOST_DRAWS: usize = 100;

/// How often practice lies, and about what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Practice {
    /// Chance that a sentence is false, whatever the others are.
    pub falsehood: f64,
    /// What is to be practised more than the rest.
    pub emphasis: Option<Emphasis>,
}

/// A taxonomy that needs more practice than others.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Emphasis {
    /// Which.
    pub taxonomy: Taxonomy,
    /// Chance that a caption is built around it, and that a lie is tried in it first.
    pub chance: f64,
}

/// Captions of scene `index` for training only, whose sentences are true or false each by itself.
/// Much denser in labels than data in TLDR's form, where half
/// of the responses have one or two edits (compare ELECTRA, arXiv 2003.10555, section 3.2).
///
/// Equal arguments give equal examples.
pub fn practice_example(
    split: Split,
    seed: u64,
    index: u64,
    responses: usize,
    practice: Practice,
) -> SceneExample {
    let scene = Scene::draw(split, seed, index);
    let mut dice = Dice::new(split, Purpose::Practice, seed, index);
    let items = (0..responses)
        .map(|_| worded(CAPTION_PROMPT.to_owned(), &draft(&scene, &mut dice, practice)))
        .collect();
    SceneExample { scene, items }
}

fn draft(scene: &Scene, dice: &mut Dice, practice: Practice) -> Draft {
    let caption = (0..MOST_DRAWS)
        .find_map(|_| {
            let focus = emphasised(dice, practice)
                .unwrap_or_else(|| TAXONOMIES[dice.below(TAXONOMIES.len())]);
            Teller::new(scene, dice).caption(focus)
        })
        .unwrap_or_default();
    let order = in_reading_order(&caption, dice);
    let mut draft: Draft =
        order.into_iter().map(|i| said(caption[i], scene, dice, practice)).collect();
    if scene.sign.is_none() && dice.chance(SIGNS_PUT_IN) {
        let fact = Fact::Written(SignWord::draw(dice));
        let sentence = Teller::new(scene, dice).worded(fact);
        let edit = Some(Edit { taxonomy: Taxonomy::TextOcr, original: None });
        let at = dice.below(draft.len() + 1);
        draft.insert(at, Said { sentence, edit });
    }
    draft
}

/// The sentence, or with the practice's chance a false one near it.
fn said(sentence: Sentence, scene: &Scene, dice: &mut Dice, practice: Practice) -> Said {
    let mut taxonomies = TAXONOMIES;
    dice.shuffle(&mut taxonomies);
    if let Some(first) = emphasised(dice, practice) {
        taxonomies.sort_by_key(|&t| t != first);
    }
    let tried = if dice.chance(practice.falsehood as f32) { &taxonomies[..] } else { &[] };
    let wrong = tried.iter().find_map(|&taxonomy| {
        Some((taxonomy, falsify(sentence.fact, taxonomy, scene, dice, |_| true)?))
    });
    match wrong {
        Some((taxonomy, fact)) => {
            let edit = Some(Edit { taxonomy, original: Some(sentence) });
            Said { sentence: Sentence { fact, ..sentence }, edit }
        }
        None => Said { sentence, edit: None },
    }
}

/// The emphasised taxonomy as often as it is meant to be. Without one no dice are thrown.
fn emphasised(dice: &mut Dice, practice: Practice) -> Option<Taxonomy> {
    practice.emphasis.filter(|e| dice.chance(e.chance as f32)).map(|e| e.taxonomy)
}

#[cfg(test)]
mod tests {
    use super::super::Truth;
    use super::*;

    const EVEN: Practice = Practice { falsehood: 0.5, emphasis: None };

    #[test]
    fn an_emphasised_taxonomy_is_lied_about_more_often() {
        let lies_about = |practice, wanted| {
            let (mut of_it, mut all) = (0, 0);
            for index in 0..200 {
                let scene = Scene::draw(Split::Train, 5, index);
                let mut dice = Dice::new(Split::Train, Purpose::Practice, 5, index);
                for edit in draft(&scene, &mut dice, practice).iter().filter_map(|s| s.edit) {
                    of_it += u32::from(edit.taxonomy == wanted);
                    all += 1;
                }
            }
            f64::from(of_it) / f64::from(all)
        };
        let taxonomy = Taxonomy::SpatialRelationship;
        let emphasis = Some(Emphasis { taxonomy, chance: 0.7 });
        let even = lies_about(EVEN, taxonomy);
        let more = lies_about(Practice { emphasis, ..EVEN }, taxonomy);
        assert!(more > 1.8 * even, "{more} beside {even}");
    }

    #[test]
    fn what_is_marked_is_false_and_the_rest_is_true() {
        let (mut sentences, mut falsehoods) = (0, 0);
        for index in 0..400 {
            let scene = Scene::draw(Split::Train, 5, index);
            let mut dice = Dice::new(Split::Train, Purpose::Practice, 5, index);
            for said in draft(&scene, &mut dice, EVEN) {
                let expected = if said.edit.is_some() { Truth::False } else { Truth::True };
                assert_eq!(said.sentence.fact.truth(&scene), expected, "{said:?} of {scene:?}");
                sentences += 1;
                falsehoods += u32::from(said.edit.is_some());
            }
        }
        let share = f64::from(falsehoods) / f64::from(sentences);
        assert!((0.42..0.56).contains(&share), "{share}");
    }

    #[test]
    fn equal_arguments_give_equal_examples_with_texts() {
        let one = practice_example(Split::Train, 1, 9, 6, EVEN);
        assert_eq!(one, practice_example(Split::Train, 1, 9, 6, EVEN));
        assert_eq!(one.items.len(), 6);
        assert!(one.items.iter().all(|i| !i.text.is_empty()));
    }
}
