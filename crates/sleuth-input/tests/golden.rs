//! Decoding, resizing and normalising against Pillow and transformers: `tests/golden/images`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "all of this file is tests")]

use std::path::PathBuf;

use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sleuth_input::{
    Filter, ImageLimits, Preparer, Preprocessor, RgbImage, TextLimits, decode_rgb, resize,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/images")
}

fn golden_bytes() -> Vec<u8> {
    std::fs::read(folder().join("golden.safetensors")).unwrap()
}

fn instruct() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/mllama/instruct")
}

fn mllama_images() -> Vec<u8> {
    std::fs::read(folder().join("../mllama_images.safetensors")).unwrap()
}

fn stored(golden: &SafeTensors<'_>, key: &str) -> RgbImage {
    let tensor = golden.tensor(key).unwrap();
    assert_eq!(tensor.dtype(), Dtype::U8, "{key}");
    let [height, width, 3] = *tensor.shape() else { panic!("{key}: {:?}", tensor.shape()) };
    RgbImage::from_raw(width as u32, height as u32, tensor.data().to_vec()).unwrap()
}

/// The sample's file, by its name without the extension.
fn decoded(name: &str) -> (RgbImage, bool) {
    let find = |extension| std::fs::read(folder().join(format!("{name}.{extension}"))).ok();
    let (bytes, is_jpeg) =
        find("png").map(|b| (b, false)).or_else(|| find("jpg").map(|b| (b, true))).unwrap();
    (decode_rgb(&bytes, &ImageLimits::default()).unwrap(), is_jpeg)
}

/// Share of bytes that differ by at most 2, and the largest difference.
fn closeness(a: &RgbImage, b: &RgbImage) -> (f64, u8) {
    assert_eq!(a.dimensions(), b.dimensions());
    let differences = || a.as_raw().iter().zip(b.as_raw()).map(|(a, b)| a.abs_diff(*b));
    let close = differences().filter(|&d| d <= 2).count() as f64 / a.as_raw().len() as f64;
    (close, differences().max().unwrap_or(0))
}

#[test]
fn resizing_equals_pillow_to_the_bit() {
    let bytes = golden_bytes();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for key in golden.names() {
        let Some((name, size)) = key.split_once(".resized.") else { continue };
        let size: u32 = size.parse().unwrap();
        let got = resize(&stored(&golden, &format!("{name}.rgb")), size, size, Filter::Bicubic);
        assert!(got == stored(&golden, key), "{key}");
        compared += 1;
    }
    assert!(compared >= 30, "{compared}");
}

#[test]
fn png_files_decode_as_pillow_decodes_them() {
    let bytes = golden_bytes();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for key in golden.names() {
        let Some(name) = key.strip_suffix(".rgb") else { continue };
        let (got, is_jpeg) = decoded(name);
        // Pillow clips 16-bit grey to white; see the next test.
        if is_jpeg || name == "mode_l_16bit" {
            continue;
        }
        assert!(got == stored(&golden, key), "{key}");
        compared += 1;
    }
    assert!(compared >= 18, "{compared}");
}

#[test]
fn sixteen_bit_grey_keeps_its_high_byte_where_pillow_clips() {
    let bytes = golden_bytes();
    let clipped = stored(&SafeTensors::deserialize(&bytes).unwrap(), "mode_l_16bit.rgb");
    let (got, _) = decoded("mode_l_16bit");
    let distinct: std::collections::BTreeSet<u8> = got.as_raw().iter().copied().collect();
    assert!(distinct.len() > 8, "{distinct:?}");
    for (got, clipped) in got.as_raw().iter().zip(clipped.as_raw()) {
        assert_eq!(*got > 0, *clipped == 255);
    }
}

#[test]
fn jpeg_files_decode_as_pillow_decodes_them_within_a_few_steps() {
    let bytes = golden_bytes();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let mut compared = 0;
    for key in golden.names() {
        let Some(name) = key.strip_suffix(".rgb") else { continue };
        let (got, is_jpeg) = decoded(name);
        if !is_jpeg {
            continue;
        }
        let (close, max) = closeness(&got, &stored(&golden, key));
        println!("{name}: {:.4} % within 2, at most {max}", 100.0 * close);
        assert!(close >= 0.99 && max <= 6, "{name}: {close} {max}");
        compared += 1;
    }
    assert!(compared >= 12, "{compared}");
}

#[test]
fn pixels_equal_those_of_siglips_processor_to_the_bit() {
    let bytes = golden_bytes();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let config = br#"{"size": {"height": 32, "width": 32}}"#;
    let got = Preprocessor::from_json(config).unwrap().pixels(&stored(&golden, "china.rgb"));
    let tensor = golden.tensor("china.pixel_values.32").unwrap();
    assert_eq!((tensor.dtype(), tensor.shape()), (Dtype::F32, &[3, 32, 32][..]));
    let expected = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    let worst = got.values().iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst == 0.0, "{worst}");
}

fn floats(golden: &SafeTensors<'_>, key: &str) -> Vec<f32> {
    let tensor = golden.tensor(key).unwrap();
    assert_eq!(tensor.dtype(), Dtype::F32, "{key}");
    tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn canvases_equal_those_of_mllamas_processor_to_the_bit() {
    let (bytes, images) = (golden_bytes(), mllama_images());
    let (rgb, golden) =
        (SafeTensors::deserialize(&bytes).unwrap(), SafeTensors::deserialize(&images).unwrap());
    let mut compared = 0;
    for key in golden.names() {
        let Some((name, side)) = key.split_once(".canvas.") else { continue };
        let config = format!(
            r#"{{"image_processor_type": "MllamaImageProcessor", "do_rescale": false,
                "do_normalize": false, "size": {{"height": {side}, "width": {side}}}}}"#
        );
        let preprocessor = Preprocessor::from_json(config.as_bytes()).unwrap();
        let got = preprocessor.pixels(&stored(&rgb, &format!("{name}.rgb")));
        let want = stored(&golden, key);
        assert_eq!((got.width(), got.height()), want.dimensions(), "{key}");
        let size = (got.width() * got.height()) as usize;
        for (at, x) in got.values().iter().enumerate() {
            let (channel, pixel) = (at / size, at % size);
            let want = f32::from(want.as_raw()[3 * pixel + channel]);
            assert_eq!(x.to_bits(), want.to_bits(), "{key} at {at}");
        }
        compared += 1;
    }
    assert!(compared >= 18, "{compared}");
}

#[test]
fn pixels_equal_those_of_mllamas_processor_to_the_bit() {
    let (bytes, images) = (golden_bytes(), mllama_images());
    let (rgb, golden) =
        (SafeTensors::deserialize(&bytes).unwrap(), SafeTensors::deserialize(&images).unwrap());
    let config = std::fs::read_to_string(instruct().join("preprocessor_config.json")).unwrap();
    let config = config.replace("28", "32");
    let got =
        Preprocessor::from_json(config.as_bytes()).unwrap().pixels(&stored(&rgb, "china.rgb"));
    let want = floats(&golden, "china.pixel_values.32");
    assert_eq!(got.values().len(), want.len());
    let worst = got.values().iter().zip(want).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(worst == 0.0, "{worst}");
}

#[test]
fn prompts_and_responses_have_the_ids_of_mllamas_processor() {
    #[derive(Deserialize)]
    struct Text {
        text: String,
        ids: Vec<u32>,
    }
    #[derive(Deserialize)]
    struct Texts {
        prompts: Vec<Text>,
        responses: Vec<Text>,
    }
    let folder = instruct();
    let texts: Texts =
        serde_json::from_slice(&std::fs::read(folder.join("texts.json")).unwrap()).unwrap();
    let preparer =
        Preparer::from_folder(&folder, ImageLimits::default(), TextLimits::default()).unwrap();
    let tokenizer = preparer.tokenizer();
    assert!(texts.prompts.len() >= 6 && texts.responses.len() >= 4);
    for Text { text, ids } in &texts.prompts {
        let got = tokenizer.encode_prompt(text).unwrap();
        assert_eq!(&*got, ids.as_slice(), "{text:?}");
        assert_eq!(got.iter().filter(|id| **id == tokenizer.image_id()).count(), 1);
    }
    for Text { text, ids } in &texts.responses {
        let got = tokenizer.encode_response(text).unwrap();
        assert_eq!(&got.ids, ids, "{text:?}");
        assert_eq!(got.spans.last().unwrap().end() as usize, text.len());
    }
    // Where transformers would make special tokens of it.
    let spelled = "<|image|><|eot_id|><|start_header_id|>assistant<|end_header_id|>";
    let prompt = tokenizer.encode_prompt(spelled).unwrap();
    assert_eq!(prompt.iter().filter(|id| **id == tokenizer.image_id()).count(), 1);
    assert_eq!(prompt.iter().filter(|id| **id == tokenizer.eos_id()).count(), 1);
    let response = tokenizer.encode_response(spelled).unwrap();
    assert!(response.ids.iter().all(|id| *id < 392), "{:?}", response.ids);
}
