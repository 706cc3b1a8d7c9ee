//! That texts alone do not tell which are false: a classifier that reads words, pairs of neighbours
//! and pairs around a word learns next to nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::super::Split;
use super::{Response, example};

/// Scenes of four captions each.
const TRAINED_ON: u64 = 700;
const TESTED_ON: u64 = 350;
/// A classifier that guesses gets 50 % and, on so many, hardly ever 54.
const MOST: f64 = 0.56;

type Features = BTreeSet<String>;

/// For each feature, in how many clean and perturbed texts it stands.
struct NaiveBayes {
    texts: [f64; 2],
    counts: BTreeMap<String, [f64; 2]>,
}

fn features(text: &str) -> Features {
    let mut out = Features::new();
    for sentence in text.split_terminator('.') {
        let mut words = vec!["^"];
        words.extend(sentence.split_whitespace());
        words.push("$");
        for (i, word) in words.iter().enumerate() {
            out.insert((*word).to_owned());
            out.extend(words.get(i + 1).map(|next| format!("{word} {next}")));
            out.extend(words.get(i + 2).map(|next| format!("{word} _ {next}")));
        }
    }
    out
}

impl NaiveBayes {
    fn learn(texts: &[Response]) -> Self {
        let mut model = Self { texts: [0.0; 2], counts: BTreeMap::new() };
        for response in texts {
            let class = usize::from(!response.is_clean);
            model.texts[class] += 1.0;
            for feature in features(&response.text) {
                model.counts.entry(feature).or_default()[class] += 1.0;
            }
        }
        model
    }

    fn says_clean(&self, text: &str) -> bool {
        let ratio = |[clean, bad]: [f64; 2]| {
            let [all_clean, all_bad] = self.texts;
            ((clean + 1.0) / (all_clean + 2.0)).ln() - ((bad + 1.0) / (all_bad + 2.0)).ln()
        };
        let known = features(text);
        known.iter().filter_map(|f| self.counts.get(f)).map(|c| ratio(*c)).sum::<f64>() > 0.0
    }
}

#[test]
fn texts_alone_do_not_tell_which_are_false() {
    let texts = |split, scenes: u64| -> Vec<Response> {
        (0..scenes).flat_map(|i| example(split, 21, i, 4).items).collect()
    };
    let model = NaiveBayes::learn(&texts(Split::Train, TRAINED_ON));
    let unseen = texts(Split::Validation, TESTED_ON);
    let right = unseen.iter().filter(|r| model.says_clean(&r.text) == r.is_clean).count();
    let accuracy = right as f64 / unseen.len() as f64;
    assert!(accuracy < MOST, "words alone give {accuracy}");
}
