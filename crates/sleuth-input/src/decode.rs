use std::io::Cursor;

use image::codecs::jpeg::JpegDecoder;
use image::codecs::png::PngDecoder;
use image::codecs::webp::WebPDecoder;
use image::error::{DecodingError, ImageFormatHint};
use image::{
    ColorType, DynamicImage, ImageDecoder, ImageError, ImageFormat, Limits, RgbImage, guess_format,
};

use crate::{ImageLimits, InputError};

mod frames;
mod jpeg;
mod orientation;
mod png;

/// Decodes a JPEG, PNG or WebP file to RGB, as transformers' `load_image` does with Pillow: the
/// EXIF orientation is applied (`ImageOps.exif_transpose`), then the image becomes RGB
/// (`convert("RGB")`).
///
/// - Alpha is dropped, not blended: a transparent pixel keeps its colour.
/// - Grey is copied to three channels, palettes are expanded, CMYK JPEGs are converted (inverted,
///   as Adobe writes them and Pillow assumes). Colour profiles and PNG gamma are ignored.
/// - Of 16-bit samples the high byte is kept. Pillow does the same for colour; its 16-bit grey
///   (mode `I;16`) clips at 255 instead, which turns most such images white, and is not copied.
/// - Of an animation of at most [`ImageLimits::max_frames`], the first frame.
///
/// The format is recognised by content. Width and height are checked against `limits` from the
/// header, before pixels are allocated. A JPEG without its end marker is refused as truncated, as
/// Pillow refuses it; damage inside JPEG scan data that still decodes is not detectable.
///
/// # Errors
/// Every image variant of [`InputError`].
pub fn decode_rgb(bytes: &[u8], limits: &ImageLimits) -> Result<RgbImage, InputError> {
    if bytes.is_empty() {
        return Err(InputError::ImageMissing);
    }
    if bytes.len() > limits.max_bytes {
        let (bytes, limit) = (bytes.len(), limits.max_bytes);
        return Err(InputError::ImageTooManyBytes { bytes, limit });
    }
    let input = Cursor::new(bytes);
    match guess_format(bytes) {
        Ok(ImageFormat::Jpeg) => {
            if let Some((width, height)) = jpeg::frame_size(bytes) {
                check_size(width, height, limits)?;
            }
            if !jpeg::has_end(bytes) {
                return Err(InputError::ImageTruncated);
            }
            read(JpegDecoder::new(input).map_err(refused)?, limits)
        }
        Ok(ImageFormat::Png) => {
            if let Some((width, height)) = png::size(bytes) {
                check_size(width, height, limits)?;
            }
            if !png::has_sound_palette(bytes) {
                let format = ImageFormatHint::Exact(ImageFormat::Png);
                let error = DecodingError::new(format, "the palette is no list of colours");
                return Err(InputError::ImageDamaged(ImageError::Decoding(error)));
            }
            check_frames(frames::png(bytes), limits)?;
            let decoder = PngDecoder::with_limits(input, allocation(limits));
            read(decoder.map_err(refused)?, limits)
        }
        Ok(ImageFormat::WebP) => {
            check_frames(frames::webp(bytes), limits)?;
            read(WebPDecoder::new(input).map_err(refused)?, limits)
        }
        _ => Err(InputError::ImageFormat),
    }
}

fn read<D: ImageDecoder>(mut decoder: D, limits: &ImageLimits) -> Result<RgbImage, InputError> {
    let (width, height) = decoder.dimensions();
    check_size(width, height, limits)?;
    decoder.set_limits(allocation(limits)).map_err(refused)?;
    let orientation = orientation::of(&mut decoder);
    let color = decoder.color_type();
    let mut samples = vec![0; pixels(width, height) * usize::from(color.bytes_per_pixel())];
    decoder.read_image(&mut samples).map_err(refused)?;
    let rgb = to_rgb(color, samples).ok_or(InputError::ImageFormat)?;
    // The buffer has three bytes for each pixel by construction.
    let image = RgbImage::from_raw(width, height, rgb).ok_or(InputError::ImageTruncated)?;
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

fn check_size(width: u32, height: u32, limits: &ImageLimits) -> Result<(), InputError> {
    let ImageLimits { max_pixels, max_side, .. } = *limits;
    if width == 0 || height == 0 {
        return Err(InputError::ImageNoPixels { width, height });
    }
    if width.max(height) > max_side || u64::from(width) * u64::from(height) > max_pixels {
        return Err(InputError::ImageTooManyPixels { width, height, max_pixels, max_side });
    }
    Ok(())
}

fn check_frames(frames: u32, limits: &ImageLimits) -> Result<(), InputError> {
    let limit = limits.max_frames;
    if frames > limit { Err(InputError::ImageTooManyFrames { frames, limit }) } else { Ok(()) }
}

fn allocation(limits: &ImageLimits) -> Limits {
    let mut out = Limits::no_limits();
    out.max_alloc = Some(limits.max_alloc());
    out
}

const fn pixels(width: u32, height: u32) -> usize {
    width as usize * height as usize
}

/// `None` for a layout that none of the three formats has.
fn to_rgb(color: ColorType, samples: Vec<u8>) -> Option<Vec<u8>> {
    // The image crate gives 16-bit samples in the machine's byte order.
    const HIGH: usize = if cfg!(target_endian = "little") { 1 } else { 0 };
    Some(match color {
        ColorType::Rgb8 => samples,
        ColorType::L8 => pick(&samples, 1, [0; 3]),
        ColorType::La8 => pick(&samples, 2, [0; 3]),
        ColorType::Rgba8 => pick(&samples, 4, [0, 1, 2]),
        ColorType::L16 => pick(&samples, 2, [HIGH; 3]),
        ColorType::La16 => pick(&samples, 4, [HIGH; 3]),
        ColorType::Rgb16 => pick(&samples, 6, [HIGH, 2 + HIGH, 4 + HIGH]),
        ColorType::Rgba16 => pick(&samples, 8, [HIGH, 2 + HIGH, 4 + HIGH]),
        _ => return None,
    })
}

/// Of every pixel of `stride` bytes, the bytes at `at`.
fn pick(samples: &[u8], stride: usize, at: [usize; 3]) -> Vec<u8> {
    samples.chunks_exact(stride).flat_map(|pixel| at.map(|i| pixel[i])).collect()
}

fn refused(error: ImageError) -> InputError {
    match error {
        ImageError::Limits(_) => InputError::ImageTooMuchMemory(error),
        ImageError::Unsupported(_) => InputError::ImageVariant(error),
        _ => InputError::ImageDamaged(error),
    }
}

#[cfg(test)]
mod tests;
