use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::folder::FolderLessons;
use super::recipe::{Stage, StageKind};
use crate::scenes::{
    Practice, Response, Scene, Split, clean_example, clean_question_example, example,
    practice_example, question_example,
};

/// One drawn image in so many carries answers to a question instead of captions.
const QUESTION_EVERY: u64 = 4;

/// A picture and texts about it that share one prompt.
#[derive(Clone, Debug)]
pub(super) struct Lesson {
    pub(super) picture: Picture,
    pub(super) items: Vec<Response>,
}

/// What a text is about.
#[derive(Clone, Debug)]
pub(super) enum Picture {
    /// Of which all is known.
    Drawn(Box<Scene>),
    /// An image file.
    File(PathBuf),
}

/// Where lessons come from; equal arguments give equal lessons.
#[derive(Clone, Debug)]
pub(super) enum Lessons {
    /// Scenes drawn from a seed, without end.
    Drawn { split: Split, seed: u64 },
    /// A data folder, over and over.
    Folder(Arc<FolderLessons>),
}

// === impl Lessons ===

impl Lessons {
    /// The picture with this place and its texts, as the stage wants them.
    pub(super) fn lesson(&self, index: u64, stage: &Stage) -> Lesson {
        match self {
            &Self::Drawn { split, seed } => drawn(split, seed, index, stage),
            Self::Folder(folder) => folder.lesson(index, stage),
        }
    }

    /// How many there are, where they end.
    pub(super) fn len(&self) -> Option<u64> {
        match self {
            Self::Drawn { .. } => None,
            Self::Folder(folder) => Some(folder.len() as u64),
        }
    }

    /// Fails where a stage needs what only drawn scenes tell.
    pub(super) fn check(&self, stage: &Stage) -> Result<()> {
        let Self::Folder(_) = self else { return Ok(()) };
        let needs = match stage.kind {
            StageKind::Vision => Some("the stage `vision` learns what each patch shows"),
            _ if stage.patch_weight.from.max(stage.patch_weight.to) > 0.0 => {
                Some("`patch_weight` above 0 learns what each patch shows")
            }
            _ if stage.falsehood > 0.0 => Some("`falsehood` above 0 makes texts wrong"),
            _ => None,
        };
        match needs {
            None => Ok(()),
            Some(needs) => anyhow::bail!(
                "{needs}, which only drawn scenes tell; leave it out with --data (--stages reward trains TLDR)"
            ),
        }
    }
}

/// All true, or half of them perturbed, or as the stage's `falsehood` says.
fn drawn(split: Split, seed: u64, index: u64, stage: &Stage) -> Lesson {
    let n = stage.responses;
    let all_clean = stage.kind == StageKind::Pretrain && stage.label_weight == 0.0;
    let made = match (index % QUESTION_EVERY == QUESTION_EVERY - 1, all_clean) {
        (false, false) if stage.falsehood > 0.0 => {
            let practice = Practice { falsehood: stage.falsehood, emphasis: stage.emphasis };
            practice_example(split, seed, index, n, practice)
        }
        (false, false) => example(split, seed, index, n),
        (false, true) => clean_example(split, seed, index, n),
        (true, false) => question_example(split, seed, index, n),
        (true, true) => clean_question_example(split, seed, index, n),
    };
    Lesson { picture: Picture::Drawn(Box::new(made.scene)), items: made.items }
}

// === impl Lesson ===

impl Lesson {
    /// The scene, where the picture was drawn.
    pub(super) fn scene(&self) -> Option<&Scene> {
        match &self.picture {
            Picture::Drawn(scene) => Some(scene),
            Picture::File(_) => None,
        }
    }
}
