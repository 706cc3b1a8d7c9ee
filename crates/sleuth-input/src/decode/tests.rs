use image::codecs::jpeg::JpegEncoder;
use image::{DynamicImage, ExtendedColorType, ImageEncoder, Rgb};
use sleuth_core::{ErrorClass, Reason};

use super::*;

fn sample() -> RgbImage {
    // Noise, so that the files' bytes are image data almost to the end.
    let mut state = 1_u32;
    RgbImage::from_fn(64, 48, |_, _| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [_, r, g, b] = state.to_le_bytes();
        Rgb([r, g, b])
    })
}

fn encode(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut out = Cursor::new(Vec::new());
    DynamicImage::ImageRgb8(image.clone()).write_to(&mut out, format).unwrap();
    out.into_inner()
}

fn decode(bytes: &[u8]) -> Result<RgbImage, InputError> {
    decode_rgb(bytes, &ImageLimits::default())
}

fn verdict(bytes: &[u8]) -> (ErrorClass, Reason) {
    let failure = decode(bytes).unwrap_err().failure();
    assert_eq!(failure.field, Some("context.image.data"));
    (failure.class, failure.reason)
}

/// A PNG of the given size that ends after its header chunk and a little data.
fn png_header(width: u32, height: u32) -> Vec<u8> {
    let mut file = encode(&RgbImage::new(1, 1), ImageFormat::Png);
    file[16..20].copy_from_slice(&width.to_be_bytes());
    file[20..24].copy_from_slice(&height.to_be_bytes());
    let sum = crc32(&file[12..29]);
    file[29..33].copy_from_slice(&sum.to_be_bytes());
    file
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |mut crc, &byte| {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 * (crc & 1));
        }
        crc
    })
}

#[test]
fn lossless_formats_give_back_the_pixels() {
    for format in [ImageFormat::Png, ImageFormat::WebP] {
        assert!(decode(&encode(&sample(), format)).unwrap() == sample(), "{format:?}");
    }
}

#[test]
fn truncated_files_are_damaged_at_every_length() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let file = encode(&sample(), format);
        decode(&file).unwrap();
        for tenth in 1..10 {
            let got = verdict(&file[..file.len() * tenth / 10]);
            let expected = (ErrorClass::InvalidRequest, Reason::IMAGE_DAMAGED);
            assert_eq!(got, expected, "{format:?} at {tenth}0 %");
        }
        // No shorter prefix panics, whatever it is said to be.
        for len in 0..file.len().min(200) {
            assert!(decode(&file[..len]).is_err(), "{format:?} at {len}");
        }
    }
}

#[test]
fn flipped_bytes_never_panic() {
    for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::WebP] {
        let file = encode(&sample(), format);
        for at in (0..file.len().min(600)).chain((600..file.len()).step_by(37)) {
            for mask in [0xFF, 0x01, 0x80] {
                let mut damaged = file.clone();
                damaged[at] ^= mask;
                if let Ok(image) = decode(&damaged) {
                    assert!(image.width() > 0 && image.height() > 0);
                }
            }
        }
    }
}

#[test]
fn what_is_no_image_is_refused_as_a_format() {
    let unsupported = (ErrorClass::InvalidRequest, Reason::IMAGE_FORMAT);
    assert_eq!(verdict(b"a photo of a cat"), unsupported);
    assert_eq!(verdict(&[0; 4096]), unsupported);
    assert_eq!(verdict(b"GIF89a\x01\x00\x01\x00\x00\x00\x00;"), unsupported);
    assert_eq!(verdict(b"BM\x3a\x00\x00\x00\x00\x00\x00\x00"), unsupported);
}

#[test]
fn no_bytes_are_a_missing_image() {
    assert_eq!(verdict(b""), (ErrorClass::InvalidRequest, Reason::IMAGE_MISSING));
}

#[test]
fn a_huge_image_is_refused_from_its_header() {
    let mut jpeg = encode(&RgbImage::new(8, 8), ImageFormat::Jpeg);
    let frame = jpeg.windows(2).position(|w| w == [0xFF, 0xC0]).unwrap();
    jpeg[frame + 5..frame + 9].copy_from_slice(&[0x4E, 0x20, 0x4E, 0x20]);
    let mut webp = encode(&RgbImage::new(8, 8), ImageFormat::WebP);
    // VP8L: 14 bits of width - 1, then 14 of height - 1.
    webp[21..25].copy_from_slice(&(0x3FFE_u32 | 0x3FFE << 14).to_le_bytes());
    for (name, file) in [
        ("png", png_header(20_000, 20_000)),
        ("long png", png_header(u32::MAX >> 1, 1)),
        ("jpeg", jpeg),
        ("webp", webp),
    ] {
        assert_eq!(verdict(&file), (ErrorClass::TooLarge, Reason::IMAGE_TOO_LARGE), "{name}");
        // The check of the header, not a decoder that ran out of what it may allocate.
        let error = decode(&file).unwrap_err();
        assert!(matches!(error, InputError::ImageTooManyPixels { .. }), "{name}: {error}");
    }
}

#[test]
fn limits_are_inclusive() {
    let file = encode(&sample(), ImageFormat::Png);
    let exact =
        ImageLimits { max_bytes: file.len(), max_pixels: 64 * 48, max_side: 64, max_frames: 1 };
    decode_rgb(&file, &exact).unwrap();
    for limits in [
        ImageLimits { max_bytes: file.len() - 1, ..exact },
        ImageLimits { max_pixels: 64 * 48 - 1, ..exact },
        ImageLimits { max_side: 63, ..exact },
    ] {
        let failure = decode_rgb(&file, &limits).unwrap_err().failure();
        assert_eq!(failure.reason, Reason::IMAGE_TOO_LARGE);
    }
}

#[test]
fn no_pixels_are_damage() {
    assert_eq!(verdict(&png_header(0, 4)), (ErrorClass::InvalidRequest, Reason::IMAGE_DAMAGED));
}

#[test]
fn alpha_is_dropped_and_high_bytes_are_kept() {
    let png = |samples: &[u8], color| {
        let mut out = Vec::new();
        image::codecs::png::PngEncoder::new(&mut out).write_image(samples, 1, 1, color).unwrap();
        decode(&out).unwrap().into_raw()
    };
    let wide = |samples: &[u16]| samples.iter().flat_map(|s| s.to_ne_bytes()).collect::<Vec<_>>();
    assert_eq!(png(&[10, 20, 30, 0], ExtendedColorType::Rgba8), [10, 20, 30]);
    assert_eq!(png(&[77, 0], ExtendedColorType::La8), [77; 3]);
    assert_eq!(png(&wide(&[0x12FF]), ExtendedColorType::L16), [0x12; 3]);
    assert_eq!(png(&wide(&[0xABFF, 0]), ExtendedColorType::La16), [0xAB; 3]);
    assert_eq!(png(&wide(&[0x0100, 0x02FF, 0x0380]), ExtendedColorType::Rgb16), [1, 2, 3]);
    assert_eq!(png(&wide(&[0x0100, 0x02FF, 0x0380, 7]), ExtendedColorType::Rgba16), [1, 2, 3]);
}

#[test]
fn grey_jpegs_become_three_equal_channels() {
    let mut file = Vec::new();
    JpegEncoder::new(&mut file).write_image(&[128; 64], 8, 8, ExtendedColorType::L8).unwrap();
    assert!(decode(&file).unwrap().pixels().all(|p| p.0 == [128; 3]));
}

#[test]
fn errors_quote_no_input() {
    let text = decode(b"SECRET words").unwrap_err();
    assert!(!text.to_string().contains("SECRET"));
    assert!(!text.failure().detail.contains("SECRET"));
}

#[test]
fn a_palette_that_is_no_list_of_colours_is_damage() {
    let file = include_bytes!("../../../../tests/golden/images/mode_p.png");
    assert!(decode(file).is_ok());
    let at = file.windows(4).position(|window| window == b"PLTE").unwrap();
    let length = u32::from_be_bytes(file[at - 4..at].try_into().unwrap()) as usize;
    // The decoder indexes past an end that cuts a colour, and past 256 colours.
    for bytes in [length - 2, 3 * 300] {
        let mut chunk = b"PLTE".to_vec();
        chunk.extend((0..bytes).map(|n| n as u8));
        let sum = crc32(&chunk).to_be_bytes();
        let size = (bytes as u32).to_be_bytes();
        let rest = &file[at + 4 + length + 4..];
        let bad = [&file[..at - 4], &size, &chunk, &sum, rest].concat();
        assert_eq!(verdict(&bad), (ErrorClass::InvalidRequest, Reason::IMAGE_DAMAGED));
    }
}
