use std::io::Cursor;

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder, ImageFormat, ImageReader};

use super::dice::Dice;

/// What a camera and a file format do to a picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Artefacts {
    /// Added to every channel.
    pub brightness: f32,
    /// Multiplies the distance from middle grey.
    pub contrast: f32,
    /// Weight of the neighbouring pixels, 0..1; at 0 nothing is blurred. Large pictures are blurred
    /// in several passes, so that they look alike.
    pub blur: f32,
    /// JPEG quality, where the picture went through JPEG.
    pub jpeg_quality: Option<u8>,
}

/// Side at which one blurring pass reaches one pixel.
const BLUR_SIDE: usize = 96;

// === impl Artefacts ===

impl Artefacts {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let jpeg = dice.chance(0.35);
        let quality = 30 + dice.below(61) as u8;
        Self {
            brightness: dice.between(-12.0, 12.0),
            contrast: dice.between(0.88, 1.08),
            blur: if dice.chance(0.25) { dice.between(0.05, 0.3) } else { 0.0 },
            jpeg_quality: jpeg.then_some(quality),
        }
    }

    /// Applies them to `side * side` pixels of 8-bit sRGB; the JPEG round trip apart.
    pub(super) fn develop(&self, pixels: &mut [u8], side: usize) {
        for value in pixels.iter_mut() {
            let v = (f32::from(*value) - 128.0) * self.contrast + 128.0 + self.brightness;
            *value = (v + 0.5).clamp(0.0, 255.0) as u8;
        }
        if self.blur > 0.0 {
            for _ in 0..(side / BLUR_SIDE).max(1) {
                self.blur_once(pixels, side);
            }
        }
    }

    fn blur_once(&self, pixels: &mut [u8], side: usize) {
        let mix = |a: u8, b: u8, c: u8| {
            let around = f32::midpoint(f32::from(a), f32::from(c));
            (f32::from(b) + (around - f32::from(b)) * self.blur + 0.5) as u8
        };
        let line = side * 3;
        for row in pixels.chunks_exact_mut(line) {
            let old = row.to_vec();
            for i in 3..line - 3 {
                row[i] = mix(old[i - 3], old[i], old[i + 3]);
            }
        }
        let old = pixels.to_vec();
        for i in line..pixels.len() - line {
            pixels[i] = mix(old[i - line], old[i], old[i + line]);
        }
    }
}

/// `side * side` pixels of 8-bit sRGB as a JPEG file.
pub(super) fn jpeg(pixels: &[u8], side: u32, quality: u8) -> image::ImageResult<Vec<u8>> {
    let mut bytes = Vec::new();
    JpegEncoder::new_with_quality(&mut bytes, quality).write_image(
        pixels,
        side,
        side,
        ExtendedColorType::Rgb8,
    )?;
    Ok(bytes)
}

/// What a JPEG file of ours shows.
pub(super) fn decoded(bytes: &[u8]) -> image::ImageResult<Vec<u8>> {
    let reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Jpeg);
    Ok(reader.decode()?.into_rgb8().into_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flat_picture_is_only_shifted() {
        let artefacts = Artefacts { brightness: 5.0, contrast: 1.0, blur: 0.3, jpeg_quality: None };
        let mut pixels = vec![100; 96 * 96 * 3];
        artefacts.develop(&mut pixels, 96);
        assert!(pixels.iter().all(|&p| p == 105));
    }

    #[test]
    fn jpeg_comes_back_nearly_the_same_and_always_the_same() {
        let pixels: Vec<u8> = (0..64 * 64 * 3).map(|i| (i / 3 % 64 * 3) as u8).collect();
        let one = jpeg(&pixels, 64, 80).unwrap();
        assert_eq!(one, jpeg(&pixels, 64, 80).unwrap());
        let back = decoded(&one).unwrap();
        let apart = back.iter().zip(&pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        assert!(apart < 16, "{apart}");
    }
}
