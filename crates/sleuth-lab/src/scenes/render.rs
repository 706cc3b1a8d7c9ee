use super::{Background, Colour, Kind, Object, Scene, Size};

/// What a patch of the picture shows.
pub type PatchTruth = Option<(Kind, Colour, Size)>;

/// A patch shows an object that covers at least this share of it.
pub const PATCH_SHARE: f32 = 0.2;

/// Samples per pixel and axis.
const SAMPLES: usize = 3;
/// Cells of the noise per axis: fixed, so that a picture looks alike at every resolution.
const NOISE_CELLS: usize = 64;

/// Draws a scene as `side * side` pixels of 8-bit sRGB, row by row (`[side, side, 3]`).
///
/// Edges are smoothed by 3×3 samples per pixel. The picture is the same at every resolution.
pub fn render(scene: &Scene, side: u32) -> Vec<u8> {
    let side = side as usize;
    let mut pixels = vec![0_u8; side * side * 3];
    draw_background(&scene.background, side, &mut pixels);
    for object in &scene.objects {
        draw_object(object, side, &mut pixels);
    }
    pixels
}

/// What each of `patches * patches` equal patches shows, row by row: the object that covers the
/// largest share of it, if that is at least [`PATCH_SHARE`]. The patch that an object covers most
/// shows it in any case, unless a bigger share is another's.
pub fn patch_truth(scene: &Scene, patches: u32) -> Vec<PatchTruth> {
    let n = patches as usize;
    let mut truth: Vec<(PatchTruth, f32)> = vec![(None, 0.0); n * n];
    for object in &scene.objects {
        let shares = patch_shares(object, n);
        let best = shares.iter().map(|s| s.1).fold(0.0, f32::max);
        for (patch, share) in shares {
            let shown = share >= PATCH_SHARE || share >= best;
            if shown && share > truth[patch].1 {
                truth[patch] = (Some((object.kind, object.colour, object.size)), share);
            }
        }
    }
    truth.into_iter().map(|t| t.0).collect()
}

/// (patch, covered share) of every patch that the object's box touches.
fn patch_shares(object: &Object, n: usize) -> Vec<(usize, f32)> {
    const POINTS: usize = 8;
    let (columns, rows) = pixel_box(object, n);
    let scale = 2.0 / object.extent;
    let mut shares = Vec::new();
    for row in rows {
        for column in columns.clone() {
            let hits = (0..POINTS * POINTS)
                .filter(|&p| {
                    let at = |i: usize, p: usize| {
                        (i as f32 + (p as f32 + 0.5) / POINTS as f32) / n as f32
                    };
                    let (x, y) = (at(column, p % POINTS), at(row, p / POINTS));
                    object.kind.holds((x - object.x) * scale, (y - object.y) * scale)
                })
                .count();
            if hits > 0 {
                shares.push((row * n + column, hits as f32 / (POINTS * POINTS) as f32));
            }
        }
    }
    shares
}

/// Columns and rows of a grid of `n * n` cells that an object's box touches.
fn pixel_box(object: &Object, n: usize) -> (std::ops::Range<usize>, std::ops::Range<usize>) {
    let half = object.extent / 2.0;
    let range = |c: f32| {
        let low = ((c - half) * n as f32).floor().max(0.0) as usize;
        let high = ((c + half) * n as f32).ceil().max(0.0) as usize;
        low..high.min(n)
    };
    (range(object.x), range(object.y))
}

fn draw_background(background: &Background, side: usize, pixels: &mut [u8]) {
    let (dx, dy) = background.direction;
    // The gradient runs from corner to corner: t is 0 at one end and 1 at the other.
    let offset = dx.min(0.0) + dy.min(0.0);
    let step = background.to.map(f32::from);
    let from = background.from.map(f32::from);
    for (row, line) in pixels.chunks_exact_mut(side * 3).enumerate() {
        let y = (row as f32 + 0.5) / side as f32;
        for (column, pixel) in line.chunks_exact_mut(3).enumerate() {
            let x = (column as f32 + 0.5) / side as f32;
            let t = dx * x + dy * y - offset;
            let noise = noise(background, row * NOISE_CELLS / side, column * NOISE_CELLS / side);
            for c in 0..3 {
                pixel[c] = (from[c] + (step[c] - from[c]) * t + noise + 0.5) as u8;
            }
        }
    }
}

/// Noise of a cell, between plus and minus the background's largest change.
fn noise(background: &Background, row: usize, column: usize) -> f32 {
    let mut h = background.noise_seed ^ (row as u32) << 16 ^ column as u32;
    h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
    h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
    h ^= h >> 16;
    ((h >> 8) as f32 / (1 << 23) as f32 - 1.0) * f32::from(background.noise)
}

/// Draws with the kind's test inlined: the inner loop holds no dispatch.
fn draw_object(object: &Object, side: usize, pixels: &mut [u8]) {
    match object.kind {
        Kind::Circle => fill(object, side, pixels, |u, v| Kind::Circle.holds(u, v)),
        Kind::Square => fill(object, side, pixels, |u, v| Kind::Square.holds(u, v)),
        Kind::Triangle => fill(object, side, pixels, |u, v| Kind::Triangle.holds(u, v)),
        Kind::Star => fill(object, side, pixels, |u, v| Kind::Star.holds(u, v)),
        Kind::Ring => fill(object, side, pixels, |u, v| Kind::Ring.holds(u, v)),
        Kind::Cross => fill(object, side, pixels, |u, v| Kind::Cross.holds(u, v)),
        Kind::Diamond => fill(object, side, pixels, |u, v| Kind::Diamond.holds(u, v)),
        Kind::Heart => fill(object, side, pixels, |u, v| Kind::Heart.holds(u, v)),
    }
}

fn fill(object: &Object, side: usize, pixels: &mut [u8], holds: impl Fn(f32, f32) -> bool) {
    let (columns, rows) = pixel_box(object, side);
    let scale = 2.0 / object.extent;
    let sub = 1.0 / SAMPLES as f32;
    for row in rows {
        for column in columns.clone() {
            let mut hits = 0_usize;
            for j in 0..SAMPLES {
                let y = (row as f32 + (j as f32 + 0.5) * sub) / side as f32;
                let v = (y - object.y) * scale;
                for i in 0..SAMPLES {
                    let x = (column as f32 + (i as f32 + 0.5) * sub) / side as f32;
                    hits += usize::from(holds((x - object.x) * scale, v));
                }
            }
            if hits > 0 {
                let share = hits as f32 / (SAMPLES * SAMPLES) as f32;
                let at = (row * side + column) * 3;
                for (pixel, &colour) in pixels[at..at + 3].iter_mut().zip(&object.rgb) {
                    let below = f32::from(*pixel);
                    *pixel = (below + (f32::from(colour) - below) * share + 0.5) as u8;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::*;

    #[test]
    fn the_centre_of_a_filled_shape_has_its_colour() {
        for index in 0..200 {
            let scene = Scene::draw(Split::Test, 2, index);
            let pixels = render(&scene, 64);
            for o in scene.objects.iter().filter(|o| o.kind != Kind::Ring) {
                let at = ((o.y * 64.0) as usize * 64 + (o.x * 64.0) as usize) * 3;
                assert_eq!(pixels[at..at + 3], o.rgb, "{o:?}");
            }
        }
    }

    #[test]
    fn a_picture_looks_alike_at_every_resolution() {
        let scene = Scene::draw(Split::Test, 2, 11);
        let (low, high) = (render(&scene, 64), render(&scene, 256));
        let mut total = 0.0;
        for row in 0..64 {
            for column in 0..64 {
                let mut sum = 0_u32;
                for p in 0..16 {
                    sum += u32::from(high[((row * 4 + p / 4) * 256 + column * 4 + p % 4) * 3]);
                }
                total += (sum as f32 / 16.0 - f32::from(low[(row * 64 + column) * 3])).abs();
            }
        }
        let mean = total / (64.0 * 64.0);
        assert!(mean < 1.0, "mean difference {mean}");
    }

    #[test]
    fn every_object_is_shown_by_a_patch_and_only_near_itself() {
        for index in 0..500 {
            let scene = Scene::draw(Split::Test, 2, index);
            let truth = patch_truth(&scene, 8);
            assert_eq!(truth.len(), 64);
            for o in &scene.objects {
                let near = |p: usize| {
                    let (x, y) = ((p % 8) as f32 / 8.0 + 0.0625, (p / 8) as f32 / 8.0 + 0.0625);
                    let reach = o.extent / 2.0 + 0.0625;
                    (x - o.x).abs() < reach && (y - o.y).abs() < reach
                };
                let look = Some((o.kind, o.colour, o.size));
                assert!((0..64).any(|p| near(p) && truth[p] == look), "scene {index}: {o:?}");
            }
            for (p, shown) in truth.iter().enumerate() {
                let (x, y) = ((p % 8) as f32 / 8.0 + 0.0625, (p / 8) as f32 / 8.0 + 0.0625);
                if let Some(look) = shown {
                    assert!(scene.objects.iter().any(|o| {
                        let reach = o.extent / 2.0 + 0.0625;
                        (o.kind, o.colour, o.size) == *look
                            && (x - o.x).abs() < reach
                            && (y - o.y).abs() < reach
                    }));
                }
            }
        }
    }
}
