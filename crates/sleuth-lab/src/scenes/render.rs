use super::artefacts::{decoded, jpeg};
use super::shape::Paint;
use super::{Object, Scene, Sign};

/// Samples per pixel and axis.
const SAMPLES: usize = 3;

/// Draws a scene as `side * side` pixels of 8-bit sRGB, row by row (`[side, side, 3]`), with its
/// artefacts but for the JPEG round trip.
///
/// Edges are smoothed by 3×3 samples per pixel. The picture looks alike at every resolution.
pub fn render(scene: &Scene, side: u32) -> Vec<u8> {
    let side = side as usize;
    let mut pixels = vec![0_u8; side * side * 3];
    for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let at = |i: usize| (i as f32 + 0.5) / side as f32;
        let colour = scene.background.at(at(i % side), at(i / side));
        pixel.copy_from_slice(&colour.map(|c| (c + 0.5).clamp(0.0, 255.0) as u8));
    }
    for object in &scene.objects {
        draw_object(object, side, &mut pixels);
    }
    if let Some(sign) = &scene.sign {
        draw_sign(sign, side, &mut pixels);
    }
    scene.artefacts.develop(&mut pixels, side);
    pixels
}

/// [`render`], through JPEG where the scene's artefacts say so.
pub fn picture(scene: &Scene, side: u32) -> Vec<u8> {
    let pixels = render(scene, side);
    let Some(quality) = scene.artefacts.jpeg_quality else { return pixels };
    // Encoding to memory and reading that back do not fail; if they did, the picture is as good.
    jpeg(&pixels, side, quality).and_then(|file| decoded(&file)).unwrap_or(pixels)
}

fn draw_object(object: &Object, side: usize, pixels: &mut [u8]) {
    let bounds = object.bounds();
    fill(bounds, side, pixels, |x, y| {
        let (u, v) = object.within(x, y);
        let part = object.kind.parts().iter().rev().find(|part| (part.holds)(u, v))?;
        Some(match part.paint {
            Paint::Body if object.pattern.is_second(u, v) => object.second_rgb,
            Paint::Body => object.rgb,
            Paint::Darker(factor) => object.rgb.map(|c| (f32::from(c) * factor) as u8),
            Paint::Fixed(rgb) => rgb,
        })
    });
}

fn draw_sign(sign: &Sign, side: usize, pixels: &mut [u8]) {
    let (width, height) = sign.extent();
    let bounds =
        [sign.x - width / 2.0, sign.y - height / 2.0, sign.x + width / 2.0, sign.y + height / 2.0];
    fill(bounds, side, pixels, |x, y| sign.at(x, y));
}

/// Paints what `at` gives for points inside `bounds` (left, top, right, bottom) over what is there.
fn fill(
    bounds: [f32; 4],
    side: usize,
    pixels: &mut [u8],
    at: impl Fn(f32, f32) -> Option<[u8; 3]>,
) {
    let range = |low: f32, high: f32| {
        let low = (low * side as f32).floor().max(0.0) as usize;
        let high = (high * side as f32).ceil().max(0.0) as usize;
        low..high.min(side)
    };
    let step = 1.0 / (SAMPLES * side) as f32;
    let all = (SAMPLES * SAMPLES) as f32;
    for row in range(bounds[1], bounds[3]) {
        for column in range(bounds[0], bounds[2]) {
            let (mut hits, mut sum) = (0_u32, [0_u32; 3]);
            for sample in 0..SAMPLES * SAMPLES {
                let x = ((column * SAMPLES + sample % SAMPLES) as f32 + 0.5) * step;
                let y = ((row * SAMPLES + sample / SAMPLES) as f32 + 0.5) * step;
                if let Some(rgb) = at(x, y) {
                    hits += 1;
                    sum.iter_mut().zip(rgb).for_each(|(s, c)| *s += u32::from(c));
                }
            }
            let start = (row * side + column) * 3;
            for (pixel, sum) in pixels[start..start + 3].iter_mut().zip(sum) {
                let below = f32::from(*pixel) * (all - hits as f32);
                *pixel = ((below + sum as f32) / all + 0.5) as u8;
            }
        }
    }
}

// === impl Object ===

impl Object {
    /// A point of the image as the shape sees it: -1..1 inside its square, upright.
    pub(super) fn within(&self, x: f32, y: f32) -> (f32, f32) {
        let scale = 2.0 / self.extent;
        let (u, v) = ((x - self.x) * scale, (y - self.y) * scale);
        // A rotation by the half tangent, without trigonometry; shrunk so that it stays inside.
        let t = self.tilt;
        let (cos, sin) = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let grow = cos + sin.abs();
        let (u, v) = ((u * cos + v * sin) * grow, (v * cos - u * sin) * grow);
        if self.turned { (-u, -v) } else { (u, v) }
    }

    /// Whether it covers a point of the image.
    pub(super) fn covers(&self, x: f32, y: f32) -> bool {
        let (u, v) = self.within(x, y);
        self.kind.holds(u, v)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, Pattern, Split};
    use super::*;

    #[test]
    fn the_middle_of_a_plain_shape_has_its_colour() {
        let filled = [Kind::Circle, Kind::Square, Kind::Heart, Kind::Diamond, Kind::Star];
        let mut seen = 0;
        for index in 0..400 {
            let mut scene = Scene::draw(Split::Test, 2, index);
            scene.artefacts.blur = 0.0;
            (scene.artefacts.contrast, scene.artefacts.brightness) = (1.0, 0.0);
            let pixels = render(&scene, 64);
            let plain = |o: &&Object| filled.contains(&o.kind) && o.pattern == Pattern::Plain;
            for (i, o) in scene.objects.iter().enumerate().filter(|(_, o)| plain(o)) {
                if scene.objects[i + 1..].iter().any(|f| f.covers(o.x, o.y)) {
                    continue;
                }
                let at = ((o.y * 64.0) as usize * 64 + (o.x * 64.0) as usize) * 3;
                assert_eq!(pixels[at..at + 3], o.rgb, "{o:?}");
                seen += 1;
            }
        }
        assert!(seen > 50);
    }

    #[test]
    fn a_picture_looks_alike_at_every_resolution() {
        for index in [11, 12, 13] {
            let mut scene = Scene::draw(Split::Test, 2, index);
            scene.artefacts.blur = 0.0;
            let (low, high) = (render(&scene, 64), render(&scene, 256));
            let mut total = 0.0;
            for row in 0..64 {
                for column in 0..64 {
                    let mut sum = 0_u32;
                    for p in 0..16 {
                        sum += u32::from(high[((row * 4 + p / 4) * 256 + column * 4 + p % 4) * 3]);
                    }
                    let low = f32::from(low[(row * 64 + column) * 3]);
                    total += (sum as f32 / 16.0 - low).abs();
                }
            }
            let mean = total / (64.0 * 64.0);
            assert!(mean < 3.0, "mean difference {mean} of scene {index}");
        }
    }

    #[test]
    fn equal_scenes_give_equal_pictures_through_jpeg_too() {
        let scene = (0..).map(|i| Scene::draw(Split::Test, 2, i));
        let scene = scene.into_iter().find(|s| s.artefacts.jpeg_quality.is_some()).unwrap();
        assert_eq!(picture(&scene, 96), picture(&scene, 96));
        assert_ne!(picture(&scene, 96), render(&scene, 96));
    }
}
