use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use sleuth_input::{Preprocessor, RgbImage, TextTokenizer};
use sleuth_models::paligemma::{Group, Prefix};

use super::recipe::{Stage, StageKind};
use crate::data::token_labels as project_labels;
use crate::scenes::{
    Response, Scene, SceneExample, Split, clean_example, clean_question_example, example, picture,
    practice_example, question_example,
};

/// Pictures are drawn at this multiple of the model's input and shrunk by the preprocessor, as
/// picture files are.
const OVERSAMPLING: u32 = 2;
/// One image in so many carries answers to a question instead of captions.
const QUESTION_EVERY: u64 = 4;

/// What turns scenes into model inputs.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) tokenizer: Arc<TextTokenizer>,
    pub(super) preprocessor: Preprocessor,
    pub(super) eos: u32,
    pub(super) split: Split,
    pub(super) seed: u64,
}

/// Responses behind one picture and prompt.
pub(super) struct Asked {
    /// Projected image rows.
    image: Tensor,
    prompt: Arc<[u32]>,
    pub(super) texts: Vec<Text>,
}

/// A response in the model's tokens.
pub(super) struct Text {
    pub(super) ids: Arc<[u32]>,
    pub(super) good: Vec<bool>,
}

// === impl Inputs ===

impl Inputs {
    /// `[scenes, 3, side, side]`.
    pub(super) fn pixels<'a>(&self, scenes: impl IntoIterator<Item = &'a Scene>) -> Result<Tensor> {
        let side = self.preprocessor.width() * OVERSAMPLING;
        let (mut values, mut count) = (Vec::new(), 0);
        for scene in scenes {
            let image = RgbImage::from_raw(side, side, picture(scene, side))
                .context("the drawing has another size")?;
            values.extend_from_slice(self.preprocessor.pixels(&image).values());
            count += 1;
        }
        let (height, width) =
            (self.preprocessor.height() as usize, self.preprocessor.width() as usize);
        Ok(Tensor::from_vec(values, (count, 3, height, width), &Device::Cpu)?)
    }

    /// The same for another split.
    pub(super) fn of(&self, split: Split) -> Self {
        Self {
            tokenizer: Arc::clone(&self.tokenizer),
            preprocessor: self.preprocessor.clone(),
            split,
            ..*self
        }
    }

    /// A scene without texts.
    pub(super) fn scene(&self, index: u64) -> Scene {
        Scene::draw(self.split, self.seed, index)
    }

    /// The texts of an image: all true, or half of them perturbed, or as a stage's `falsehood` says.
    pub(super) fn example(&self, index: u64, stage: &Stage) -> SceneExample {
        let (split, seed, responses) = (self.split, self.seed, stage.responses);
        let all_clean = stage.kind == StageKind::Pretrain && stage.label_weight == 0.0;
        match (index % QUESTION_EVERY == QUESTION_EVERY - 1, all_clean) {
            (false, false) if stage.falsehood > 0.0 => {
                practice_example(split, seed, index, responses, stage.falsehood)
            }
            (false, false) => example(split, seed, index, responses),
            (false, true) => clean_example(split, seed, index, responses),
            (true, false) => question_example(split, seed, index, responses),
            (true, true) => clean_question_example(split, seed, index, responses),
        }
    }
}

// === impl Asked ===

impl Asked {
    /// `image` is projected, `[image tokens, hidden]`; the items share their prompt.
    pub(super) fn new(
        image: Tensor,
        items: &[Response],
        tokenizer: &TextTokenizer,
    ) -> Result<Self> {
        let prompt = tokenizer.encode_prompt(items.first().map_or("", |i| &i.prompt))?;
        let texts = items.iter().map(|item| Text::new(item, tokenizer)).collect::<Result<_>>()?;
        Ok(Self { image, prompt, texts })
    }

    pub(super) fn group(&self) -> Group<'_> {
        Group {
            prefix: Prefix::New { image: &self.image, prompt: &self.prompt },
            responses: self.texts.iter().map(|t| &*t.ids).collect(),
        }
    }

    pub(super) fn prefix_rows(&self) -> Result<usize> {
        Ok(self.image.dim(0)? + self.prompt.len())
    }
}

// === impl Text ===

impl Text {
    fn new(item: &Response, tokenizer: &TextTokenizer) -> Result<Self> {
        let encoded = tokenizer.encode_response(&item.text)?;
        let good = project_labels(&encoded.spans, &item.labels);
        Ok(Self { ids: encoded.ids.into(), good })
    }

    pub(super) fn is_clean(&self) -> bool {
        self.good.iter().all(|&good| good)
    }
}
