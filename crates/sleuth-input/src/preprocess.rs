use std::path::Path;
use std::sync::Arc;

use image::RgbImage;
use serde::Deserialize;
use serde_json::Value;
use sleuth_core::Pixels;

use crate::tiles::Fit;
use crate::{Filter, FolderError, resize};

/// How a model wants its image: the settings of transformers' `SiglipImageProcessor` or
/// `MllamaImageProcessor`, from `preprocessor_config.json`.
///
/// Siglip's image has one size, and its aspect is not kept. Mllama's is a canvas of whole tiles that
/// fits the image's shape; the image keeps its aspect and is padded below and at the right.
///
/// Fields that are omitted or null take the class's defaults: 224 by 224, bicubic (Mllama:
/// bilinear), `1/255`, mean and standard deviation 0.5, four tiles. Unknown fields are ignored;
/// `do_convert_rgb` too, since images are always converted.
#[derive(Clone, Debug, PartialEq)]
pub struct Preprocessor {
    /// Of the image, or of a tile.
    height: u32,
    width: u32,
    /// Most tiles of a canvas, where images are laid out in tiles.
    tiles: Option<u32>,
    filter: Filter,
    /// `None` where values stay 0..255.
    rescale: Option<f64>,
    /// Mean and standard deviation for each channel; `None` where values are not normalised.
    normalize: Option<[(f32, f32); 3]>,
}

#[derive(Deserialize)]
struct File {
    image_processor_type: Option<String>,
    do_resize: Option<bool>,
    size: Option<Value>,
    resample: Option<Value>,
    do_rescale: Option<bool>,
    rescale_factor: Option<Value>,
    do_normalize: Option<bool>,
    image_mean: Option<Value>,
    image_std: Option<Value>,
    do_center_crop: Option<bool>,
    do_pad: Option<bool>,
    max_image_tiles: Option<Value>,
}

// === impl Preprocessor ===

impl Preprocessor {
    /// Largest height and width of the model's image.
    pub const MAX_SIDE: u32 = 2048;
    /// Most tiles of a canvas.
    pub const MAX_TILES: u32 = 16;

    /// Parses the bytes of a `preprocessor_config.json`.
    ///
    /// # Errors
    /// [`FolderError::PreprocessorJson`] where it is not JSON of the right types,
    /// [`FolderError::PreprocessorField`] naming the field whose value makes no sense or asks for a
    /// step that is not offered (cropping, padding, another processor).
    pub fn from_json(bytes: &[u8]) -> Result<Self, FolderError> {
        let file: File = serde_json::from_slice(bytes).map_err(FolderError::PreprocessorJson)?;
        let tiles = tiles(&file)?;
        refuse_other_steps(&file, tiles.is_some())?;
        let (height, width) = match file.size {
            None => (224, 224),
            Some(size) => (side(&size, "size.height")?, side(&size, "size.width")?),
        };
        if tiles.is_some() && height != width {
            return Err(invalid("size", "must have equal height and width: tiles are square"));
        }
        let filter = match file.resample {
            None if tiles.is_some() => Filter::Bilinear,
            None => Filter::Bicubic,
            Some(number) => number.as_u64().and_then(Filter::from_number).ok_or_else(|| {
                invalid("resample", "must be 1 (Lanczos), 2 (bilinear) or 3 (bicubic)")
            })?,
        };
        let rescale = match file.rescale_factor {
            None => 1.0 / 255.0,
            Some(value) => number(&value)
                .filter(|x| *x > 0.0 && *x <= 1.0)
                .ok_or_else(|| invalid("rescale_factor", "must be above 0 and at most 1"))?,
        };
        let mean = channels(file.image_mean.as_ref(), "image_mean", |x| x.abs() <= 256.0)?;
        let std = channels(file.image_std.as_ref(), "image_std", |x| (1e-6..=256.0).contains(&x))?;
        let normalize = [0, 1, 2].map(|c| (mean[c], std[c]));
        Ok(Self {
            height,
            width,
            tiles,
            filter,
            rescale: file.do_rescale.unwrap_or(true).then_some(rescale),
            normalize: file.do_normalize.unwrap_or(true).then_some(normalize),
        })
    }

    /// Reads and parses a `preprocessor_config.json`.
    ///
    /// # Errors
    /// [`FolderError::Read`], or as [`Preprocessor::from_json`].
    pub fn from_file(path: &Path) -> Result<Self, FolderError> {
        Self::from_json(&crate::prepare::read(path)?)
    }

    /// Rows of the model's image, or of a tile.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Columns of the model's image, or of a tile.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Most tiles of an image, where the model wants tiles.
    pub fn tiles(&self) -> Option<u32> {
        self.tiles
    }

    /// Resizes, pads, rescales and normalises: f32 `[3, height, width]`, of which the sides are whole
    /// tiles where the model wants tiles.
    ///
    /// Values are transformers' to the bit: the sample times the factor in f64, rounded to f32,
    /// then `(x - mean) / std` in f32.
    pub fn pixels(&self, image: &RgbImage) -> Pixels {
        let image = self.laid_out(image);
        let (width, height) = image.dimensions();
        let [red, green, blue] = std::array::from_fn(|channel| self.table(channel));
        // Written where it stays: through a vector all values would be copied once more.
        let mut values: Arc<[f32]> = std::iter::repeat_n(0.0, image.as_raw().len()).collect();
        if let Some(planes) = Arc::get_mut(&mut values) {
            let (r, rest) = planes.split_at_mut(planes.len() / 3);
            let (g, b) = rest.split_at_mut(rest.len() / 2);
            let places = r.iter_mut().zip(g).zip(b);
            for (pixel, ((r, g), b)) in image.as_raw().chunks_exact(3).zip(places) {
                *r = red[usize::from(pixel[0])];
                *g = green[usize::from(pixel[1])];
                *b = blue[usize::from(pixel[2])];
            }
        }
        #[expect(clippy::expect_used, reason = "three values for each pixel, by construction")]
        Pixels::try_new(height, width, values).expect("as many values as pixels")
    }

    /// At the model's size, or on its canvas.
    fn laid_out(&self, image: &RgbImage) -> RgbImage {
        let Some(most) = self.tiles.filter(|_| image.width() > 0 && image.height() > 0) else {
            return resize(image, self.width, self.height, self.filter);
        };
        let Fit { canvas, height, width } =
            Fit::of(image.height(), image.width(), self.height, most);
        let image = resize(image, width, height, self.filter);
        let mut whole = RgbImage::new(canvas.columns * self.width, canvas.rows * self.height);
        let stride = 3 * whole.width() as usize;
        let lines = image.as_raw().chunks_exact(3 * width as usize);
        for (line, out) in lines.zip(whole.chunks_exact_mut(stride)) {
            out[..line.len()].copy_from_slice(line);
        }
        whole
    }

    /// A digest of the settings, and of how this build decodes and resizes: it is the same exactly
    /// where equal image files give equal pixels. Stable across processes; for cache keys.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_derive_key("sleuth-input image preprocessing v1");
        hasher.update(&self.height.to_le_bytes());
        hasher.update(&self.width.to_le_bytes());
        hasher.update(&[self.filter.number()]);
        if let Some(most) = self.tiles {
            hasher.update(&most.to_le_bytes());
        }
        hasher.update(&self.rescale.unwrap_or(0.0).to_bits().to_le_bytes());
        for (mean, std) in self.normalize.iter().flatten() {
            hasher.update(&mean.to_bits().to_le_bytes());
            hasher.update(&std.to_bits().to_le_bytes());
        }
        *hasher.finalize().as_bytes()
    }

    /// What becomes of each sample value of a channel.
    fn table(&self, channel: usize) -> [f32; 256] {
        std::array::from_fn(|sample| {
            let sample = sample as f64;
            let x = self.rescale.map_or(sample, |factor| sample * factor) as f32;
            self.normalize.map_or(x, |channels| {
                let (mean, std) = channels[channel];
                (x - mean) / std
            })
        })
    }
}

/// Most tiles, where the file is that of a processor that makes tiles.
fn tiles(file: &File) -> Result<Option<u32>, FolderError> {
    match &file.image_processor_type {
        Some(name) if name.starts_with("Mllama") => {}
        None => return Ok(None),
        Some(name) if name.starts_with("Siglip") || name.starts_with("PaliGemma") => {
            return Ok(None);
        }
        Some(_) => {
            let problem = "must be a SiglipImageProcessor or a MllamaImageProcessor";
            return Err(invalid("image_processor_type", problem));
        }
    }
    let most = Preprocessor::MAX_TILES;
    let tiles = match &file.max_image_tiles {
        None => Some(4),
        Some(value) => value.as_u64().and_then(|n| u32::try_from(n).ok()),
    };
    tiles
        .filter(|n| (1..=most).contains(n))
        .map(Some)
        .ok_or_else(|| invalid("max_image_tiles", format!("must be a whole number, 1 to {most}")))
}

fn refuse_other_steps(file: &File, tiles: bool) -> Result<(), FolderError> {
    if file.do_resize == Some(false) {
        return Err(invalid("do_resize", "must be true: the model takes certain sizes"));
    }
    if tiles && file.do_pad == Some(false) {
        return Err(invalid("do_pad", "must be true: the model takes whole tiles"));
    }
    for (field, value) in [("do_center_crop", file.do_center_crop), ("do_pad", file.do_pad)] {
        if value == Some(true) && !(tiles && field == "do_pad") {
            return Err(invalid(field, "asks for a step that is not offered"));
        }
    }
    Ok(())
}

fn side(size: &Value, field: &'static str) -> Result<u32, FolderError> {
    let name = field.trim_start_matches("size.");
    size.get(name)
        .and_then(Value::as_u64)
        .and_then(|side| u32::try_from(side).ok())
        .filter(|side| (1..=Preprocessor::MAX_SIDE).contains(side))
        .ok_or_else(|| {
            invalid(field, format!("must be a whole number, 1 to {}", Preprocessor::MAX_SIDE))
        })
}

/// A number, or one for each channel; 0.5 where nothing is said.
fn channels(
    value: Option<&Value>,
    field: &'static str,
    in_range: impl Fn(f64) -> bool,
) -> Result<[f32; 3], FolderError> {
    let one = |value: &Value| number(value).filter(|x| in_range(*x)).map(|x| x as f32);
    let all = match value {
        None => Some([0.5; 3]),
        Some(Value::Array(values)) => match values.as_slice() {
            [r, g, b] => one(r).zip(one(g)).zip(one(b)).map(|((r, g), b)| [r, g, b]),
            _ => None,
        },
        Some(value) => one(value).map(|x| [x; 3]),
    };
    all.ok_or_else(|| invalid(field, "must be three finite numbers in a sensible range"))
}

fn number(value: &Value) -> Option<f64> {
    value.as_f64().filter(|x| x.is_finite())
}

fn invalid(field: &'static str, problem: impl Into<String>) -> FolderError {
    FolderError::PreprocessorField { field, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    fn parse(json: &str) -> Result<Preprocessor, FolderError> {
        Preprocessor::from_json(json.as_bytes())
    }

    #[test]
    fn omitted_fields_take_the_defaults_of_siglip() {
        let explicit = parse(
            r#"{"image_processor_type": "SiglipImageProcessor", "do_resize": true,
                "size": {"height": 224, "width": 224}, "resample": 3, "do_rescale": true,
                "rescale_factor": 0.00392156862745098, "do_normalize": true,
                "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
                "do_convert_rgb": null, "image_seq_length": 256}"#,
        )
        .unwrap();
        assert_eq!(parse("{}").unwrap(), explicit);
        assert_eq!(parse("{}").unwrap().digest(), explicit.digest());
    }

    #[test]
    fn nonsense_is_refused_by_the_name_of_its_field() {
        for (json, expected) in [
            (r#"{"size": {"height": 0, "width": 8}}"#, "size.height"),
            (r#"{"size": {"height": 8, "width": 1000000}}"#, "size.width"),
            (r#"{"size": {"shortest_edge": 224}}"#, "size.height"),
            (r#"{"size": 224}"#, "size.height"),
            (r#"{"resample": 17}"#, "resample"),
            (r#"{"resample": "bicubic"}"#, "resample"),
            (r#"{"rescale_factor": 0}"#, "rescale_factor"),
            (r#"{"rescale_factor": "x"}"#, "rescale_factor"),
            (r#"{"image_mean": [0.5, 0.5]}"#, "image_mean"),
            (r#"{"image_std": [0.5, 0.0, 0.5]}"#, "image_std"),
            (r#"{"do_resize": false}"#, "do_resize"),
            (r#"{"do_center_crop": true}"#, "do_center_crop"),
            (r#"{"do_pad": true}"#, "do_pad"),
            (r#"{"image_processor_type": "CLIPImageProcessor"}"#, "image_processor_type"),
            (r#"{"image_processor_type": "MllamaImageProcessor", "do_pad": false}"#, "do_pad"),
            (
                r#"{"image_processor_type": "MllamaImageProcessor", "max_image_tiles": 0}"#,
                "max_image_tiles",
            ),
            (
                r#"{"image_processor_type": "MllamaImageProcessor", "size": {"height": 8, "width": 9}}"#,
                "size",
            ),
        ] {
            match parse(json) {
                Err(FolderError::PreprocessorField { field, .. }) => assert_eq!(field, expected),
                other => panic!("{json}: {other:?}"),
            }
        }
        assert!(matches!(parse("[1"), Err(FolderError::PreprocessorJson(_))));
    }

    #[test]
    fn pixels_are_channel_first_and_normalised() {
        let config = parse(r#"{"size": {"height": 1, "width": 2}}"#).unwrap();
        let mut image = RgbImage::new(2, 1);
        image.put_pixel(0, 0, Rgb([0, 127, 255]));
        image.put_pixel(1, 0, Rgb([255, 128, 0]));
        let got = config.pixels(&image);
        let mid = |x: f64| ((x / 255.0) as f32 - 0.5) / 0.5;
        assert_eq!(got.values(), [-1.0, 1.0, mid(127.0), mid(128.0), 1.0, -1.0]);
        assert_eq!((got.height(), got.width()), (1, 2));
    }

    #[test]
    fn steps_can_be_switched_off() {
        let config = parse(
            r#"{"size": {"height": 1, "width": 1}, "do_rescale": false, "do_normalize": false}"#,
        )
        .unwrap();
        let got = config.pixels(&RgbImage::from_pixel(1, 1, Rgb([1, 2, 200])));
        assert_eq!(got.values(), [1.0, 2.0, 200.0]);
    }

    #[test]
    fn an_image_in_tiles_is_padded_below_and_at_the_right_before_it_is_normalised() {
        let config = parse(
            r#"{"image_processor_type": "MllamaImageProcessor", "size": {"height": 4, "width": 4},
                "do_pad": true}"#,
        )
        .unwrap();
        assert_eq!(config.tiles(), Some(4));
        let got = config.pixels(&RgbImage::from_pixel(8, 3, Rgb([255, 255, 255])));
        assert_eq!((got.height(), got.width()), (4, 8));
        for (at, x) in got.values().iter().enumerate() {
            let row = at / 8 % 4;
            let want: f32 = if row < 3 { 1.0 } else { -1.0 };
            assert_eq!(x.to_bits(), want.to_bits());
        }
    }

    #[test]
    fn every_setting_changes_the_digest() {
        let base = parse("{}").unwrap().digest();
        for json in [
            r#"{"size": {"height": 224, "width": 225}}"#,
            r#"{"resample": 2}"#,
            r#"{"rescale_factor": 0.5}"#,
            r#"{"do_rescale": false}"#,
            r#"{"do_normalize": false}"#,
            r#"{"image_mean": [0.5, 0.5, 0.4]}"#,
            r#"{"image_std": [0.5, 0.5, 0.4]}"#,
            r#"{"image_processor_type": "MllamaImageProcessor", "resample": 3}"#,
        ] {
            assert_ne!(parse(json).unwrap().digest(), base, "{json}");
        }
    }
}
