use std::io::Cursor;

use image::{ImageFormat, Rgb, RgbImage};
use sleuth_core::{ErrorClass, Reason};

use super::*;
use crate::tokenizer::toy;

fn folder(preprocessor: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), toy::bytes(&toy::gemma())).unwrap();
    std::fs::write(folder.path().join("preprocessor_config.json"), preprocessor).unwrap();
    folder
}

fn load(preprocessor: &str) -> Result<Preparer, FolderError> {
    let folder = folder(preprocessor);
    Preparer::from_folder(folder.path(), ImageLimits::default(), TextLimits::default())
}

fn small() -> Preparer {
    load(r#"{"size": {"height": 8, "width": 6}}"#).unwrap()
}

fn png(color: [u8; 3]) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    RgbImage::from_pixel(10, 10, Rgb(color)).write_to(&mut out, ImageFormat::Png).unwrap();
    out.into_inner()
}

#[test]
fn an_item_becomes_pixels_ids_and_spans() {
    let preparer = small();
    let (prepared, response) = preparer.prepare(&png([255, 0, 0]), "ab", "ab ab.").unwrap();
    assert_eq!((prepared.pixels.height(), prepared.pixels.width()), (8, 6));
    let [red, green] = [0, 48].map(|at| prepared.pixels.values()[at]);
    assert!(red > 0.999 && green < -0.999, "{red} {green}");
    assert_eq!(prepared.response[..], response.ids);
    assert_eq!(response.spans.last().unwrap().end(), 6);
    assert_eq!(prepared.prompt[0], preparer.tokenizer().bos_id());
}

#[test]
fn an_image_prepared_once_serves_many_responses() {
    let preparer = small();
    let file = png([1, 2, 3]);
    let image = preparer.prepare_image(&file).unwrap();
    for response in ["ab", "a b", "."] {
        let once = preparer.prepare_with(&image, "a", response).unwrap();
        assert_eq!(once, preparer.prepare(&file, "a", response).unwrap());
    }
}

#[test]
fn the_image_key_follows_file_and_settings() {
    let (a, b) = (png([1, 2, 3]), png([1, 2, 4]));
    let key = |preparer: &Preparer, file: &[u8]| preparer.prepare_image(file).unwrap().key;
    let preparer = small();
    assert_eq!(key(&preparer, &a), key(&small(), &a));
    assert_eq!(key(&preparer, &a), preparer.image_key(blake3::hash(&a).as_bytes()));
    assert_ne!(key(&preparer, &a), key(&preparer, &b));
    let other = load(r#"{"size": {"height": 8, "width": 6}, "resample": 2}"#).unwrap();
    assert_ne!(key(&preparer, &a), key(&other, &a));
}

#[test]
fn each_part_fails_by_its_own_name() {
    let preparer = small();
    let large = "a".repeat(1 << 20);
    let file = png([0; 3]);
    for (image, prompt, response, class, reason, field) in [
        (&file[..], "", "", ErrorClass::InvalidRequest, Reason::RESPONSE_EMPTY, "response"),
        (&file, "", large.as_str(), ErrorClass::TooLarge, Reason::RESPONSE_TOO_LARGE, "response"),
        (&file, &large, "a", ErrorClass::TooLarge, Reason::PROMPT_TOO_LARGE, "context.prompt"),
        (b"", "", "a", ErrorClass::InvalidRequest, Reason::IMAGE_MISSING, "context.image.data"),
        (b"text", "", "a", ErrorClass::InvalidRequest, Reason::IMAGE_FORMAT, "context.image.data"),
    ] {
        let failure = preparer.prepare(image, prompt, response).unwrap_err();
        assert_eq!((failure.class, failure.reason, failure.field), (class, reason, Some(field)));
        assert!(!failure.is_retryable());
    }
}

#[test]
fn a_missing_file_is_named() {
    let folder = folder("{}");
    std::fs::remove_file(folder.path().join("preprocessor_config.json")).unwrap();
    let error = Preparer::from_folder(folder.path(), ImageLimits::default(), TextLimits::default())
        .unwrap_err();
    assert!(error.to_string().ends_with("preprocessor_config.json"), "{error}");
    assert!(matches!(load(r#"{"resample": 9}"#), Err(FolderError::PreprocessorField { .. })));
}
