use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use sleuth_input::{ImageLimits, Preprocessor, RgbImage, TextTokenizer, decode_rgb};
use sleuth_models::paligemma::{Group, Prefix};

use super::lessons::{Lesson, Lessons, Picture};
use super::recipe::Stage;
use crate::data::token_labels as project_labels;
use crate::scenes::{Response, picture};

/// Pictures are drawn at this multiple of the model's input and shrunk by the preprocessor, as
/// picture files are.
const OVERSAMPLING: u32 = 2;
/// What turns lessons into model inputs.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub(super) tokenizer: Arc<TextTokenizer>,
    pub(super) preprocessor: Preprocessor,
    pub(super) eos: u32,
    pub(super) lessons: Lessons,
}

/// Responses behind one picture and prompt.
pub(super) struct Asked {
    /// Projected image rows.
    image: Tensor,
    prompt: Arc<[u32]>,
    pub(super) texts: Vec<Text>,
}

/// Tokens of texts that share a picture.
pub(super) struct Lengths {
    /// With `<bos>` and newline.
    pub(super) prompt: usize,
    pub(super) texts: Vec<usize>,
}

/// A response in the model's tokens.
pub(super) struct Text {
    pub(super) ids: Arc<[u32]>,
    pub(super) good: Vec<bool>,
}

// === impl Inputs ===

impl Inputs {
    /// `[pictures, 3, side, side]`.
    pub(super) fn pixels<'a>(
        &self,
        lessons: impl IntoIterator<Item = &'a Lesson>,
    ) -> Result<Tensor> {
        let (mut values, mut count) = (Vec::new(), 0);
        for lesson in lessons {
            let image = self.image(&lesson.picture)?;
            values.extend_from_slice(self.preprocessor.pixels(&image).values());
            count += 1;
        }
        let (height, width) =
            (self.preprocessor.height() as usize, self.preprocessor.width() as usize);
        Ok(Tensor::from_vec(values, (count, 3, height, width), &Device::Cpu)?)
    }

    fn image(&self, of: &Picture) -> Result<RgbImage> {
        match of {
            Picture::Drawn(scene) => {
                let side = self.preprocessor.width() * OVERSAMPLING;
                RgbImage::from_raw(side, side, picture(scene, side))
                    .context("the drawing has another size")
            }
            Picture::File(path) => {
                let name = || path.display().to_string();
                let bytes = fs::read(path).with_context(name)?;
                decode_rgb(&bytes, &ImageLimits::default()).with_context(name)
            }
        }
    }

    /// The same texts and pictures from elsewhere.
    pub(super) fn of(&self, lessons: Lessons) -> Self {
        Self { lessons, ..self.clone() }
    }

    /// The picture with this place and its texts.
    pub(super) fn lesson(&self, index: u64, stage: &Stage) -> Lesson {
        self.lessons.lesson(index, stage)
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

    /// As many tokens as [`Asked::new`] would give.
    pub(super) fn lengths(items: &[Response], tokenizer: &TextTokenizer) -> Result<Lengths> {
        let prompt = tokenizer.encode_prompt(items.first().map_or("", |i| &i.prompt))?.len();
        let length = |item: &Response| Ok(tokenizer.encode_response(&item.text)?.ids.len());
        Ok(Lengths { prompt, texts: items.iter().map(length).collect::<Result<_>>()? })
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
