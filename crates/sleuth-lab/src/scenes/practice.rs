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

/// Captions of scene `index` for training only: every sentence is false with the chance
/// `falsehood`, whatever the others are. Much denser in labels than data in TLDR's form, where half
/// of the responses have one or two edits (compare ELECTRA, arXiv 2003.10555, section 3.2).
///
/// Equal arguments give equal examples.
pub fn practice_example(
    split: Split,
    seed: u64,
    index: u64,
    responses: usize,
    falsehood: f64,
) -> SceneExample {
    let scene = Scene::draw(split, seed, index);
    let mut dice = Dice::new(split, Purpose::Practice, seed, index);
    let items = (0..responses)
        .map(|_| worded(CAPTION_PROMPT.to_owned(), &draft(&scene, &mut dice, falsehood as f32)))
        .collect();
    SceneExample { scene, items }
}

fn draft(scene: &Scene, dice: &mut Dice, falsehood: f32) -> Draft {
    let caption = (0..MOST_DRAWS)
        .find_map(|_| {
            let focus = TAXONOMIES[dice.below(TAXONOMIES.len())];
            Teller::new(scene, dice).caption(focus)
        })
        .unwrap_or_default();
    let order = in_reading_order(&caption, dice);
    let mut draft: Draft =
        order.into_iter().map(|i| said(caption[i], scene, dice, falsehood)).collect();
    if scene.sign.is_none() && dice.chance(SIGNS_PUT_IN) {
        let fact = Fact::Written(SignWord::draw(dice));
        let sentence = Teller::new(scene, dice).worded(fact);
        let edit = Some(Edit { taxonomy: Taxonomy::TextOcr, original: None });
        let at = dice.below(draft.len() + 1);
        draft.insert(at, Said { sentence, edit });
    }
    draft
}

/// The sentence, or with the chance `falsehood` a false one near it.
fn said(sentence: Sentence, scene: &Scene, dice: &mut Dice, falsehood: f32) -> Said {
    let mut taxonomies = TAXONOMIES;
    dice.shuffle(&mut taxonomies);
    let tried = if dice.chance(falsehood) { &taxonomies[..] } else { &[] };
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

#[cfg(test)]
mod tests {
    use super::super::Truth;
    use super::*;

    #[test]
    fn what_is_marked_is_false_and_the_rest_is_true() {
        let (mut sentences, mut falsehoods) = (0, 0);
        for index in 0..400 {
            let scene = Scene::draw(Split::Train, 5, index);
            let mut dice = Dice::new(Split::Train, Purpose::Practice, 5, index);
            for said in draft(&scene, &mut dice, 0.5) {
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
        let one = practice_example(Split::Train, 1, 9, 6, 0.5);
        assert_eq!(one, practice_example(Split::Train, 1, 9, 6, 0.5));
        assert_eq!(one.items.len(), 6);
        assert!(one.items.iter().all(|i| !i.text.is_empty()));
    }
}
