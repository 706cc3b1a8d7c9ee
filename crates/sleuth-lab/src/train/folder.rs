use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::lessons::{Lesson, Picture};
use super::recipe::{Stage, StageKind};
use crate::data::{Record, Records};
use crate::scenes::Response;

/// What `split` says of records that are never trained on.
const HELD_OUT: [&str; 2] = ["validation", "test"];

/// The responses of a data folder, those behind one image and prompt together. Holds all texts in
/// memory, and no image.
#[derive(Debug)]
pub(super) struct FolderLessons {
    seed: u64,
    groups: Vec<Group>,
    /// The order of one pass over the groups, and which pass: made anew for each.
    order: Mutex<(u64, Arc<[u32]>)>,
}

#[derive(Debug)]
struct Group {
    image: PathBuf,
    items: Vec<Response>,
}

/// A data folder's two parts.
#[derive(Debug)]
pub(super) struct FolderParts {
    /// Records whose split is neither validation nor test.
    pub(super) train: FolderLessons,
    /// Records whose split is validation; there may be none.
    pub(super) validation: FolderLessons,
}

// === impl FolderParts ===

impl FolderParts {
    /// Reads `data.jsonl`. Errors name the line.
    pub(super) fn open(folder: &Path, seed: u64) -> Result<Self> {
        let (mut train, mut validation) = (Collected::default(), Collected::default());
        let context = || format!("--data {}", folder.display());
        for record in Records::open(folder).with_context(context)? {
            let record = record.with_context(context)?;
            match record.split.as_deref() {
                Some("validation") => validation.add(folder, record),
                Some(split) if HELD_OUT.contains(&split) => {}
                _ => train.add(folder, record),
            }
        }
        let none = "has no record to train on: each is of the split validation or test";
        ensure!(!train.groups.is_empty(), "--data {}: {none}", folder.display());
        Ok(Self {
            train: FolderLessons::new(seed, train.groups),
            validation: FolderLessons::new(seed, validation.groups),
        })
    }
}

#[derive(Default)]
struct Collected {
    places: HashMap<(String, String), usize>,
    groups: Vec<Group>,
}

// === impl Collected ===

impl Collected {
    fn add(&mut self, folder: &Path, record: Record) {
        let is_clean = record.is_clean();
        let Record { image, prompt, response, labels, .. } = record;
        let path = folder.join(&image);
        let place = *self.places.entry((image, prompt.clone())).or_insert_with(|| {
            self.groups.push(Group { image: path, items: Vec::new() });
            self.groups.len() - 1
        });
        self.groups[place].items.push(Response { prompt, text: response, labels, is_clean });
    }
}

// === impl FolderLessons ===

impl FolderLessons {
    fn new(seed: u64, groups: Vec<Group>) -> Self {
        Self { seed, groups, order: Mutex::new((u64::MAX, [].into())) }
    }

    /// Images with a prompt.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Each pass takes every group once, in an order of its own; of a group with more responses
    /// than the stage asks for, others in each pass.
    pub(super) fn lesson(&self, index: u64, stage: &Stage) -> Lesson {
        let n = self.groups.len() as u64;
        let (pass, place) = (index / n, (index % n) as usize);
        let group = &self.groups[self.order(pass)[place] as usize];
        let wanted = |item: &&Response| {
            item.is_clean || stage.kind != StageKind::Pretrain || stage.label_weight > 0.0
        };
        let mut items: Vec<Response> = group.items.iter().filter(wanted).cloned().collect();
        if items.len() > stage.responses {
            items.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed ^ index.rotate_left(32)));
            items.truncate(stage.responses);
        }
        Lesson { picture: Picture::File(group.image.clone()), items }
    }

    fn order(&self, pass: u64) -> Arc<[u32]> {
        let mut known = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != pass {
            let mut order: Vec<u32> = (0..self.groups.len() as u32).collect();
            order.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(pass)));
            *known = (pass, order.into());
        }
        Arc::clone(&known.1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Recipe;
    use super::*;

    fn folder(lines: &[(&str, &str, Option<&str>)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let lines: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(i, (image, response, split))| {
                serde_json::json!({"id": i.to_string(), "image": image, "prompt": "p",
                    "response": response, "labels": [], "split": split})
                .to_string()
            })
            .collect();
        std::fs::write(folder.path().join("data.jsonl"), lines.join("\n")).unwrap();
        folder
    }

    fn texts(lesson: &Lesson) -> Vec<&str> {
        lesson.items.iter().map(|i| &*i.text).collect()
    }

    #[test]
    fn each_pass_takes_every_group_once_and_held_out_ones_never() {
        let made: Vec<(String, String)> =
            (0..7).map(|i| (format!("{i}.png"), format!("text {i}"))).collect();
        let mut lines: Vec<_> = made.iter().map(|(i, t)| (&**i, &**t, Some("train"))).collect();
        lines.extend([("v.png", "v", Some("validation")), ("t.png", "t", Some("test"))]);
        let folder = folder(&lines);
        let parts = FolderParts::open(folder.path(), 3).unwrap();
        assert_eq!((parts.train.len(), parts.validation.len()), (7, 1));
        let stage = Recipe::mini().stages.pop().unwrap();
        let pass = |p: u64| -> Vec<String> {
            (p * 7..p * 7 + 7)
                .map(|i| texts(&parts.train.lesson(i, &stage))[0].to_owned())
                .collect()
        };
        let (first, second) = (pass(0), pass(1));
        assert_ne!(first, second);
        for mut taken in [first.clone(), second] {
            taken.sort();
            assert_eq!(taken, made.iter().map(|(_, t)| t.clone()).collect::<Vec<_>>());
        }
        assert_eq!(first, pass(0), "equal arguments, equal lessons");
    }

    #[test]
    fn of_a_large_group_as_many_are_taken_as_the_stage_asks_for() {
        let made: Vec<String> = (0..9).map(|i| format!("text {i}")).collect();
        let lines: Vec<_> = made.iter().map(|t| ("a.png", &**t, None)).collect();
        let folder = folder(&lines);
        let train = FolderParts::open(folder.path(), 3).unwrap().train;
        let mut stage = Recipe::mini().stages.pop().unwrap();
        stage.responses = 4;
        let lesson = train.lesson(0, &stage);
        let mut taken = texts(&lesson);
        taken.sort_unstable();
        taken.dedup();
        assert_eq!(taken.len(), 4);
        stage.responses = 20;
        assert_eq!(train.lesson(0, &stage).items.len(), 9);
    }

    #[test]
    fn a_folder_without_anything_to_train_on_is_refused() {
        let folder = folder(&[("a.png", "x", Some("test"))]);
        let error = FolderParts::open(folder.path(), 1).unwrap_err().to_string();
        assert!(error.contains("no record to train on"), "{error}");
    }
}
