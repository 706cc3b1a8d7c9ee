use anyhow::Result;
use candle_core::{D, IndexOp, Tensor};
use sleuth_models::RewardHead;
use sleuth_models::paligemma::{PaliGemma, PrefixStates};

use super::inputs::{Asked, Inputs, Text};
use super::lessons::Lesson;
use super::losses::{cross_entropy, token_labels};
use super::recipe::{Objective, Stage, StageKind};
use crate::scenes::{PATCH_GROUPS, Scene, patch_truth};

/// A model during training.
#[derive(Debug)]
pub(super) struct Learner {
    pub(super) backbone: PaliGemma,
    pub(super) head: RewardHead,
    /// From a patch's state to what it shows: `[PATCH_CLASSES, vision hidden]`.
    pub(super) patch_head: Tensor,
}

/// A summed loss and what it was summed over.
#[derive(Clone, Debug)]
pub(super) struct Loss {
    pub(super) sum: Tensor,
    pub(super) tally: Tally,
}

/// Counts for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) loss: f64,
    pub(super) units: u64,
    /// Patches of objects named rightly in every group, or responses judged rightly.
    pub(super) right: u64,
    pub(super) judged: u64,
}

/// Outputs of the patch head; each group's last class is "nothing".
pub(super) const PATCH_CLASSES: usize = {
    let (mut sum, mut i) = (0, 0);
    while i < PATCH_GROUPS.len() {
        sum += PATCH_GROUPS[i];
        i += 1;
    }
    sum
};

// === impl Tally ===

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.units += other.units;
        self.right += other.right;
        self.judged += other.judged;
    }
}

// === impl Learner ===

impl Learner {
    /// The summed loss of some training images at a step, as one graph.
    pub(super) fn loss(
        &self,
        stage: &Stage,
        step: u64,
        inputs: &Inputs,
        images: &[u64],
    ) -> Result<Loss> {
        match stage.kind {
            StageKind::Vision => self.vision_loss(stage, inputs, images),
            StageKind::Pretrain => self.pretrain_loss(stage, step, inputs, images),
            StageKind::Reward => self.reward_loss(stage, inputs, images),
        }
    }

    fn vision_loss(&self, stage: &Stage, inputs: &Inputs, images: &[u64]) -> Result<Loss> {
        let lessons: Vec<_> = images.iter().map(|&i| inputs.lesson(i, stage)).collect();
        let features = self.backbone.see(&inputs.pixels(&lessons)?)?;
        self.patch_loss(&features, &lessons.iter().filter_map(Lesson::scene).collect::<Vec<_>>())
    }

    /// What each patch shows, from features `[scenes, patches, vision hidden]`.
    fn patch_loss(&self, features: &Tensor, scenes: &[&Scene]) -> Result<Loss> {
        let side = self.backbone.config().vision_config.patches_per_side() as u32;
        let classes: Vec<_> = scenes
            .iter()
            .flat_map(|scene| patch_truth(scene, side))
            .map(|truth| truth.classes())
            .collect();
        let logits = features.flatten_to(1)?.matmul(&self.patch_head.t()?)?;
        let mut sum = Tensor::zeros((), logits.dtype(), logits.device())?;
        let mut all_right = vec![true; classes.len()];
        let mut start = 0;
        for (group, &size) in PATCH_GROUPS.iter().enumerate() {
            let targets: Vec<u32> = classes.iter().map(|c| c[group]).collect();
            let logits = logits.narrow(1, start, size)?.contiguous()?;
            sum = (sum + cross_entropy(&logits, &targets)?)?;
            let named = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
            for (right, (named, target)) in all_right.iter_mut().zip(named.iter().zip(&targets)) {
                *right &= named == target;
            }
            start += size;
        }
        let shows_something = |c: &[u32; PATCH_GROUPS.len()]| {
            c.iter().zip(&PATCH_GROUPS).any(|(&class, &size)| class as usize + 1 < size)
        };
        let shows = classes.iter().zip(all_right).filter(|(c, _)| shows_something(c));
        let (right, judged) = shows.fold((0, 0), |(r, n), (_, ok)| (r + u64::from(ok), n + 1));
        let tally = Tally { loss: scalar(&sum)?, units: classes.len() as u64, right, judged };
        Ok(Loss { sum, tally })
    }

    /// Texts as language, and each patch's loss at its weight beside a token's.
    fn pretrain_loss(
        &self,
        stage: &Stage,
        step: u64,
        inputs: &Inputs,
        images: &[u64],
    ) -> Result<Loss> {
        let all_clean = stage.label_weight == 0.0;
        let lessons: Vec<_> = images.iter().map(|&i| inputs.lesson(i, stage)).collect();
        let features = self.backbone.see(&inputs.pixels(&lessons)?)?;
        let asked = self.asked(&features, &lessons, inputs)?;
        let groups: Vec<_> = asked.iter().map(Asked::group).collect();
        let output = self.backbone.forward(&groups, PrefixStates::Keep)?;
        let tokens = output.responses.dim(0)? as u64;
        let mut sum = match &output.prefixes {
            Some(prefixes) => {
                self.language_loss(prefixes, &output.responses, &asked, inputs.eos)?
            }
            None => Tensor::zeros((), features.dtype(), features.device())?,
        };
        let mut tally = Tally { loss: scalar(&sum)?, units: tokens, right: 0, judged: 0 };
        if !all_clean {
            let labels = self.label_loss(stage, &output.responses, &asked)?;
            sum = (sum + (labels.sum * stage.label_weight)?)?;
            tally.right = labels.tally.right;
            tally.judged = labels.tally.judged;
        }
        let weight = stage.patch_weight.at(step, stage.steps);
        if weight > 0.0 {
            let scenes: Vec<_> = lessons.iter().filter_map(Lesson::scene).collect();
            let patches = self.patch_loss(&features, &scenes)?;
            let per_token = weight * tokens as f64 / patches.tally.units.max(1) as f64;
            sum = (sum + (patches.sum * per_token)?)?;
            if all_clean {
                tally.right = patches.tally.right;
                tally.judged = patches.tally.judged;
            }
        }
        Ok(Loss { sum, tally })
    }

    fn reward_loss(&self, stage: &Stage, inputs: &Inputs, images: &[u64]) -> Result<Loss> {
        let lessons: Vec<_> = images.iter().map(|&i| inputs.lesson(i, stage)).collect();
        // TLDR trains projector and decoder; the tower stays as it is.
        let features = self.backbone.see(&inputs.pixels(&lessons)?)?.detach();
        let asked = self.asked(&features, &lessons, inputs)?;
        let groups: Vec<_> = asked.iter().map(Asked::group).collect();
        let output = self.backbone.forward(&groups, PrefixStates::Drop)?;
        self.label_loss(stage, &output.responses, &asked)
    }

    /// Texts behind their pictures' projected features.
    pub(super) fn asked(
        &self,
        features: &Tensor,
        lessons: &[Lesson],
        inputs: &Inputs,
    ) -> Result<Vec<Asked>> {
        lessons
            .iter()
            .enumerate()
            .map(|(i, lesson)| {
                let image = self.backbone.project(&features.i(i)?)?;
                Asked::new(image, &lesson.items, &inputs.tokenizer)
            })
            .collect()
    }

    /// Token labels on the states of all response tokens, `[tokens, hidden]`.
    fn label_loss(&self, stage: &Stage, states: &Tensor, asked: &[Asked]) -> Result<Loss> {
        let logits = self.head.forward(states)?;
        let texts = || asked.iter().flat_map(|a| &a.texts);
        let last_only = stage.objective == Objective::LastToken;
        let (logits, good): (Tensor, Vec<bool>) = if last_only {
            let ends = texts().scan(0_u32, |end, text| {
                *end += text.ids.len() as u32;
                Some(*end - 1)
            });
            let ends: Vec<u32> = ends.collect();
            let ends = Tensor::from_slice(&ends, ends.len(), logits.device())?;
            (logits.index_select(&ends, 0)?, texts().map(Text::is_clean).collect())
        } else {
            (logits, texts().flat_map(|t| t.good.iter().copied()).collect())
        };
        let sum = token_labels(&logits, &good, stage.bad_token_weight)?;
        let lengths: Vec<usize> =
            texts().map(|t| if last_only { 1 } else { t.ids.len() }).collect();
        let (right, judged) = judged_right(&logits.to_vec1::<f32>()?, &good, &lengths);
        let tally = Tally { loss: scalar(&sum)?, units: good.len() as u64, right, judged };
        Ok(Loss { sum, tally })
    }

    /// Next-token cross entropy of the true words, the first token and `<eos>` included.
    fn language_loss(
        &self,
        prefixes: &Tensor,
        states: &Tensor,
        asked: &[Asked],
        eos: u32,
    ) -> Result<Tensor> {
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        let prefix_rows = prefixes.dim(0)? as u32;
        let (mut prefix_end, mut start) = (0, prefix_rows);
        for asked in asked {
            prefix_end += asked.prefix_rows()? as u32;
            for text in &asked.texts {
                let length = text.ids.len() as u32;
                let before = std::iter::once(prefix_end - 1).chain(start..start + length);
                let next = text.ids.iter().copied().chain([eos]);
                // A wrong word is nothing to learn to say; the true ones after it are.
                let good = text.good.iter().copied().chain([true]);
                for ((row, target), _) in before.zip(next).zip(good).filter(|(_, good)| *good) {
                    rows.push(row);
                    targets.push(target);
                }
                start += length;
            }
        }
        if rows.is_empty() {
            return Ok(Tensor::zeros((), states.dtype(), states.device())?);
        }
        let rows = Tensor::from_slice(&rows, rows.len(), states.device())?;
        let states = Tensor::cat(&[prefixes, states], 0)?.index_select(&rows, 0)?;
        Ok(cross_entropy(&states.matmul(&self.backbone.embedding().t()?)?, &targets)?)
    }
}

/// Responses whose verdict (every logit above 0) is the label, and all responses.
fn judged_right(logits: &[f32], good: &[bool], lengths: &[usize]) -> (u64, u64) {
    let (mut right, mut start) = (0, 0);
    for &length in lengths {
        let own = start..start + length;
        let said = logits[own.clone()].iter().all(|&x| x > 0.0);
        right += u64::from(said == good[own].iter().all(|&g| g));
        start += length;
    }
    (right, lengths.len() as u64)
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(f64::from(t.to_scalar::<f32>()?))
}
