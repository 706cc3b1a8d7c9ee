//! Pillow's resampling for 8-bit RGB, in its fixed-point arithmetic, so that results are equal bit
//! for bit (Pillow's `Resample.c`).
//!
//! Each output pixel is a weighted mean of the input pixels under the filter, which is widened by
//! the scale when shrinking (antialias). Rows and columns are resampled one after the other, with 8
//! bits in between, so that their order matters: it is that of Pillow 13. Pillow up to 12 always took
//! rows first, and differs by a few steps on images that shrink much more in height than in width.

use std::f64::consts::PI;

use image::RgbImage;

/// Fraction bits of a weight: 32, less 8 for the sample and 2 for weights outside 0..1.
const PRECISION_BITS: u32 = 32 - 8 - 2;

/// A resampling filter, as Pillow defines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Filter {
    /// Sinc windowed by sinc, three lobes; Pillow's number 1.
    Lanczos,
    /// Triangle; Pillow's number 2.
    Bilinear,
    /// Keys' cubic with `a = -0.5`; Pillow's number 3.
    Bicubic,
}

/// The input pixels under one output pixel, and their weights.
struct Tap {
    first: usize,
    weights: Vec<i32>,
}

/// Resizes an image to `width` by `height` without keeping its aspect, as Pillow's
/// `Image.resize((width, height), filter)` does. Sides of 0 become 1.
pub fn resize(image: &RgbImage, width: u32, height: u32, filter: Filter) -> RgbImage {
    let (width, height) = (width.max(1), height.max(1));
    if image.width() == 0 || image.height() == 0 {
        return RgbImage::new(width, height);
    }
    // A pass that changes no size is skipped, not run with the weights of an identity.
    match (image.width() == width, image.height() == height) {
        (true, true) => image.clone(),
        (true, false) => columns(image, height, filter),
        (false, true) => rows(image, width, filter),
        (false, false) if columns_first(image, width, height) => {
            rows(&columns(image, height, filter), width, filter)
        }
        (false, false) => columns(&rows(image, width, filter), height, filter),
    }
}

/// Where the height loses more than twice as many pixels as the width.
fn columns_first(image: &RgbImage, width: u32, height: u32) -> bool {
    let lost = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let (rows, columns) = (lost(image.height(), height), lost(image.width(), width));
    rows > 0 && rows > 2 * columns
}

fn rows(image: &RgbImage, width: u32, filter: Filter) -> RgbImage {
    let taps = taps(image.width(), width, filter);
    let mut out = RgbImage::new(width, image.height());
    let (from, to) = (3 * image.width() as usize, 3 * width as usize);
    let lines = image.as_raw().chunks_exact(from).zip(out.chunks_exact_mut(to));
    for (line, out) in lines {
        for (tap, out) in taps.iter().zip(out.chunks_exact_mut(3)) {
            let mut sums = [HALF; 3];
            for (pixel, weight) in line[3 * tap.first..].chunks_exact(3).zip(&tap.weights) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(sample) * weight;
                }
            }
            for (out, sum) in out.iter_mut().zip(sums) {
                *out = to_sample(sum);
            }
        }
    }
    out
}

fn columns(image: &RgbImage, height: u32, filter: Filter) -> RgbImage {
    let taps = taps(image.height(), height, filter);
    let mut out = RgbImage::new(image.width(), height);
    let stride = 3 * image.width() as usize;
    let mut sums = vec![HALF; stride];
    for (tap, out) in taps.iter().zip(out.chunks_exact_mut(stride)) {
        sums.fill(HALF);
        let lines = image.as_raw()[stride * tap.first..].chunks_exact(stride);
        for (line, &weight) in lines.zip(&tap.weights) {
            for (sum, &sample) in sums.iter_mut().zip(line) {
                *sum += i32::from(sample) * weight;
            }
        }
        for (out, &sum) in out.iter_mut().zip(&sums) {
            *out = to_sample(sum);
        }
    }
    out
}

/// One half, so that the shift rounds.
const HALF: i32 = 1 << (PRECISION_BITS - 1);

fn to_sample(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// For each of `to` output pixels, what it takes of `from` input pixels; weights sum to about
/// `1 << PRECISION_BITS`.
fn taps(from: u32, to: u32, filter: Filter) -> Vec<Tap> {
    let scale = f64::from(from) / f64::from(to);
    let widening = scale.max(1.0);
    let support = filter.support() * widening;
    let narrowing = 1.0 / widening;
    let tap = |x: u32| {
        let center = (f64::from(x) + 0.5) * scale;
        // Casts truncate towards zero and saturate, as C's do for these values.
        let first = ((center - support + 0.5) as i64).max(0) as usize;
        let end = ((center + support + 0.5) as i64).min(i64::from(from)) as usize;
        let mut weights: Vec<f64> =
            (first..end).map(|i| filter.at((i as f64 - center + 0.5) * narrowing)).collect();
        let total: f64 = weights.iter().sum();
        if total != 0.0 {
            for weight in &mut weights {
                *weight /= total;
            }
        }
        Tap { first, weights: weights.into_iter().map(to_fixed).collect() }
    };
    (0..to).map(tap).collect()
}

fn to_fixed(weight: f64) -> i32 {
    let scaled = weight * f64::from(1 << PRECISION_BITS);
    (scaled + 0.5_f64.copysign(weight)) as i32
}

// === impl Filter ===

impl Filter {
    /// Pillow's number for it, as in `resample` of `preprocessor_config.json`.
    pub const fn number(self) -> u8 {
        match self {
            Self::Lanczos => 1,
            Self::Bilinear => 2,
            Self::Bicubic => 3,
        }
    }

    /// The filter with that number of Pillow's, if it is offered here.
    pub fn from_number(number: u64) -> Option<Self> {
        [Self::Lanczos, Self::Bilinear, Self::Bicubic]
            .into_iter()
            .find(|filter| u64::from(filter.number()) == number)
    }

    const fn support(self) -> f64 {
        match self {
            Self::Lanczos => 3.0,
            Self::Bilinear => 1.0,
            Self::Bicubic => 2.0,
        }
    }

    /// The order of operations is Pillow's: another one could differ in the last bit.
    fn at(self, x: f64) -> f64 {
        match self {
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
            Self::Bilinear => (1.0 - x.abs()).max(0.0),
            Self::Bicubic => cubic(x.abs()),
        }
    }
}

fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}

#[cfg(test)]
mod tests {
    use image::Rgb;

    use super::*;

    const FILTERS: [Filter; 3] = [Filter::Lanczos, Filter::Bilinear, Filter::Bicubic];

    #[test]
    fn a_flat_image_stays_flat_at_every_size() {
        let image = RgbImage::from_pixel(37, 23, Rgb([0, 128, 255]));
        for filter in FILTERS {
            for (w, h) in [(1, 1), (7, 90), (64, 64), (37, 5)] {
                let out = resize(&image, w, h, filter);
                assert!(out.pixels().all(|p| p.0 == [0, 128, 255]), "{filter:?} {w}x{h}");
            }
        }
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        let image = RgbImage::from_fn(5, 4, |x, y| Rgb([x as u8 * 50, y as u8 * 60, 7]));
        assert_eq!(resize(&image, 5, 4, Filter::Bicubic), image);
    }

    #[test]
    fn numbers_name_the_filters_as_pillow_does() {
        for filter in FILTERS {
            assert_eq!(Filter::from_number(u64::from(filter.number())), Some(filter));
        }
        assert_eq!(Filter::from_number(0), None);
    }

    #[test]
    fn a_long_thin_image_becomes_square() {
        let image = RgbImage::from_pixel(20_000, 1, Rgb([9, 9, 9]));
        let out = resize(&image, 8, 8, Filter::Bicubic);
        assert!(out.pixels().all(|p| p.0 == [9, 9, 9]));
    }
}
