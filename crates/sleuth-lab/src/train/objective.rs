use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{D, Device, IndexOp, Tensor};
use sleuth_input::{Preprocessor, RgbImage, TextTokenizer};
use sleuth_models::RewardHead;
use sleuth_models::paligemma::{Group, PaliGemma, Prefix, PrefixStates};

use super::losses::{cross_entropy, token_labels};
use super::recipe::{Stage, StageKind};
use crate::data::token_labels as project_labels;
use crate::scenes::{
    Colour, Kind, PatchTruth, Response, Scene, SceneExample, Size, Split, example, patch_truth,
    question_example, render,
};

/// Pictures are drawn at this multiple of the model's input and shrunk by the preprocessor, as
/// picture files are.
const OVERSAMPLING: u32 = 2;
/// One image in so many carries answers to a question instead of captions.
const QUESTION_EVERY: u64 = 4;
/// The language loss of a token next to the label loss of one.
const LANGUAGE_WEIGHT: f64 = 0.5;

/// What turns scenes into model inputs.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) tokenizer: TextTokenizer,
    pub(super) preprocessor: Preprocessor,
    pub(super) eos: u32,
    pub(super) seed: u64,
}

/// A model during training.
#[derive(Debug)]
pub(super) struct Learner {
    pub(super) backbone: PaliGemma,
    pub(super) head: RewardHead,
    /// From a patch's state to kind, colour and size: `[classes, vision hidden]`.
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
    /// Patches named rightly, or responses judged rightly.
    pub(super) right: u64,
    pub(super) judged: u64,
}

pub(super) const KINDS: usize = Kind::ALL.len() + 1;
pub(super) const COLOURS: usize = Colour::ALL.len() + 1;
pub(super) const SIZES: usize = Size::ALL.len() + 1;
/// Outputs of the patch head; each group's last class is "nothing".
pub(super) const PATCH_CLASSES: usize = KINDS + COLOURS + SIZES;

// === impl Tally ===

impl Tally {
    pub(super) fn add(&mut self, other: Self) {
        self.loss += other.loss;
        self.units += other.units;
        self.right += other.right;
        self.judged += other.judged;
    }
}

// === impl Inputs ===

impl Inputs {
    /// `[scenes, 3, side, side]`.
    fn pixels(&self, scenes: &[Scene]) -> Result<Tensor> {
        let side = self.preprocessor.width() * OVERSAMPLING;
        let mut values = Vec::new();
        for scene in scenes {
            let image = RgbImage::from_raw(side, side, render(scene, side))
                .context("the drawing has another size")?;
            values.extend_from_slice(self.preprocessor.pixels(&image).values());
        }
        let (height, width) =
            (self.preprocessor.height() as usize, self.preprocessor.width() as usize);
        Ok(Tensor::from_vec(values, (scenes.len(), 3, height, width), &Device::Cpu)?)
    }

    fn captions(&self, index: u64, responses: usize) -> SceneExample {
        if index % QUESTION_EVERY == QUESTION_EVERY - 1 {
            question_example(Split::Train, self.seed, index, responses)
        } else {
            example(Split::Train, self.seed, index, responses)
        }
    }
}

// === impl Learner ===

impl Learner {
    /// The summed loss of some training images, as one graph.
    pub(super) fn loss(&self, stage: &Stage, inputs: &Inputs, images: &[u64]) -> Result<Loss> {
        match stage.kind {
            StageKind::Vision => self.patch_loss(inputs, images),
            StageKind::Base | StageKind::Reward => self.caption_loss(stage, inputs, images),
        }
    }

    fn patch_loss(&self, inputs: &Inputs, images: &[u64]) -> Result<Loss> {
        let side = self.backbone.config().vision_config.patches_per_side() as u32;
        let scenes: Vec<_> =
            images.iter().map(|&i| Scene::draw(Split::Train, inputs.seed, i)).collect();
        let truth: Vec<_> = scenes.iter().flat_map(|scene| patch_truth(scene, side)).collect();
        let features = self.backbone.see(&inputs.pixels(&scenes)?)?.flatten_to(1)?;
        let logits = features.matmul(&self.patch_head.t()?)?;
        let mut sum = Tensor::zeros((), logits.dtype(), logits.device())?;
        let mut all_right = vec![true; truth.len()];
        let mut start = 0;
        for (classes, targets) in patch_targets(&truth) {
            let logits = logits.narrow(1, start, classes)?;
            sum = (sum + cross_entropy(&logits, &targets)?)?;
            let named = logits.argmax(D::Minus1)?.to_vec1::<u32>()?;
            for (right, (named, target)) in all_right.iter_mut().zip(named.iter().zip(&targets)) {
                *right &= named == target;
            }
            start += classes;
        }
        let shows = truth.iter().zip(all_right).filter(|(t, _)| t.is_some());
        let (right, judged) = shows.fold((0, 0), |(r, n), (_, ok)| (r + u64::from(ok), n + 1));
        let tally = Tally { loss: scalar(&sum)?, units: truth.len() as u64, right, judged };
        Ok(Loss { sum, tally })
    }

    fn caption_loss(&self, stage: &Stage, inputs: &Inputs, images: &[u64]) -> Result<Loss> {
        let examples: Vec<_> =
            images.iter().map(|&i| inputs.captions(i, stage.responses)).collect();
        let scenes: Vec<_> = examples.iter().map(|e| e.scene.clone()).collect();
        let features = self.backbone.see(&inputs.pixels(&scenes)?)?.detach();
        let asked: Vec<Asked> = examples
            .iter()
            .enumerate()
            .map(|(i, example)| {
                Asked::new(self.backbone.project(&features.i(i)?)?, &example.items, inputs)
            })
            .collect::<Result<_>>()?;
        let groups: Vec<_> = asked.iter().map(Asked::group).collect();
        let output = self.backbone.forward(&groups, PrefixStates::Keep)?;
        let good: Vec<bool> = asked.iter().flat_map(Asked::good).collect();
        let logits = self.head.forward(&output.responses)?;
        let mut sum = token_labels(&logits, &good, stage.bad_token_weight)?;
        if stage.kind == StageKind::Base
            && let Some(prefixes) = &output.prefixes
        {
            let language = self.language_loss(prefixes, &output.responses, &asked, inputs.eos)?;
            sum = (sum + (language * LANGUAGE_WEIGHT)?)?;
        }
        let (right, judged) = judged_right(&logits.to_vec1::<f32>()?, &asked);
        let tally = Tally { loss: scalar(&sum)?, units: good.len() as u64, right, judged };
        Ok(Loss { sum, tally })
    }

    /// Next-token cross entropy of the clean responses, their first token and `<eos>` included.
    fn language_loss(
        &self,
        prefixes: &Tensor,
        states: &Tensor,
        asked: &[Asked],
        eos: u32,
    ) -> Result<Tensor> {
        let mut rows = Vec::new();
        let mut targets = Vec::new();
        let (mut prefix_end, mut start) = (0, 0);
        for asked in asked {
            prefix_end += asked.prefix_rows()?;
            for text in &asked.texts {
                if text.good.iter().all(|&g| g) {
                    rows.push(prefixes.narrow(0, prefix_end - 1, 1)?);
                    rows.push(states.narrow(0, start, text.ids.len())?);
                    targets.extend_from_slice(&text.ids);
                    targets.push(eos);
                }
                start += text.ids.len();
            }
        }
        if rows.is_empty() {
            return Ok(Tensor::zeros((), states.dtype(), states.device())?);
        }
        let logits = Tensor::cat(&rows, 0)?.matmul(&self.backbone.embedding().t()?)?;
        Ok(cross_entropy(&logits, &targets)?)
    }
}

/// Responses behind one picture and prompt.
struct Asked {
    image: Tensor,
    prompt: Arc<[u32]>,
    texts: Vec<Text>,
}

impl Asked {
    fn new(image: Tensor, items: &[Response], inputs: &Inputs) -> Result<Self> {
        let prompt = inputs.tokenizer.encode_prompt(items.first().map_or("", |i| &i.prompt))?;
        let texts = items.iter().map(|item| Text::new(item, inputs)).collect::<Result<_>>()?;
        Ok(Self { image, prompt, texts })
    }

    fn group(&self) -> Group<'_> {
        Group {
            prefix: Prefix::New { image: &self.image, prompt: &self.prompt },
            responses: self.texts.iter().map(|t| &*t.ids).collect(),
        }
    }

    fn good(&self) -> impl Iterator<Item = bool> {
        self.texts.iter().flat_map(|t| t.good.iter().copied())
    }

    fn prefix_rows(&self) -> Result<usize> {
        Ok(self.image.dim(0)? + self.prompt.len())
    }
}

/// A response in the model's tokens.
struct Text {
    ids: Arc<[u32]>,
    good: Vec<bool>,
}

impl Text {
    fn new(item: &Response, inputs: &Inputs) -> Result<Self> {
        let encoded = inputs.tokenizer.encode_response(&item.text)?;
        let good = project_labels(&encoded.spans, &item.labels);
        Ok(Self { ids: encoded.ids.into(), good })
    }
}

/// Responses whose verdict (every token above 0) is the label, and all responses.
fn judged_right(logits: &[f32], asked: &[Asked]) -> (u64, u64) {
    let mut rest = logits;
    let (mut right, mut judged) = (0, 0);
    for text in asked.iter().flat_map(|a| &a.texts) {
        let (own, after) = rest.split_at(text.ids.len());
        right += u64::from(own.iter().all(|&x| x > 0.0) == text.good.iter().all(|&g| g));
        judged += 1;
        rest = after;
    }
    (right, judged)
}

/// For each of kind, colour and size: the number of classes and each patch's class.
fn patch_targets(truth: &[PatchTruth]) -> [(usize, Vec<u32>); 3] {
    let class = |found: Option<usize>, none: usize| found.unwrap_or(none - 1) as u32;
    let kinds = truth
        .iter()
        .map(|t| class(t.and_then(|t| Kind::ALL.iter().position(|k| *k == t.0)), KINDS));
    let colours = truth
        .iter()
        .map(|t| class(t.and_then(|t| Colour::ALL.iter().position(|c| *c == t.1)), COLOURS));
    let sizes = truth
        .iter()
        .map(|t| class(t.and_then(|t| Size::ALL.iter().position(|s| *s == t.2)), SIZES));
    [(KINDS, kinds.collect()), (COLOURS, colours.collect()), (SIZES, sizes.collect())]
}

fn scalar(t: &Tensor) -> Result<f64> {
    Ok(f64::from(t.to_scalar::<f32>()?))
}
