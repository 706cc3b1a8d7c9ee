use super::dice::Dice;

/// What lies behind the objects: muted tones, so that objects stand out.
#[derive(Clone, Debug, PartialEq)]
pub struct Background {
    /// Colour at one end, sRGB.
    pub from: [u8; 3],
    /// Colour at the other end.
    pub to: [u8; 3],
    /// How one goes over into the other.
    pub blend: Blend,
    /// A faint regular or irregular surface.
    pub texture: Texture,
    /// Largest change of a channel by the texture.
    pub depth: f32,
    /// Fixes irregular textures.
    pub seed: u32,
    /// Faint strokes and blobs that are no objects.
    pub marks: Vec<Mark>,
}

/// How the two tones of a background meet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blend {
    /// Evenly, along a direction with `|x| + |y| = 1`; one tone where both are equal.
    Gradient(f32, f32),
    /// At a horizon this far down, 0..1.
    Horizon(f32),
}

/// A background's surface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Texture {
    Smooth,
    Grain,
    Clouds,
    Stripes,
    Grid,
}

/// A faint ellipse; long and thin it is a stroke.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark {
    /// Centre, 0..1.
    pub centre: (f32, f32),
    /// Half axes, of the side.
    pub axes: (f32, f32),
    /// Cosine and sine of its slant.
    pub slant: (f32, f32),
    /// What it adds to every channel.
    pub tone: f32,
}

/// Muted colours.
const MUTED: [[u8; 3]; 10] = [
    [128, 134, 142],
    [142, 148, 136],
    [150, 138, 128],
    [158, 146, 150],
    [134, 144, 152],
    [146, 146, 146],
    [182, 178, 168],
    [176, 184, 190],
    [104, 106, 112],
    [112, 104, 98],
];
/// Cells of irregular textures per axis: fixed, so that a picture looks alike at every resolution.
const GRAIN_CELLS: f32 = 64.0;
const CLOUD_CELLS: f32 = 7.0;
/// Bars and lines per side.
const BARS: f32 = 11.0;

// === impl Background ===

impl Background {
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let from = tone(dice);
        let to = if dice.chance(0.6) { tone(dice) } else { from };
        let blend = if dice.chance(0.3) {
            Blend::Horizon(dice.between(0.35, 0.75))
        } else {
            let t = dice.between(-1.0, 1.0);
            Blend::Gradient(t, if dice.chance(0.5) { 1.0 - t.abs() } else { t.abs() - 1.0 })
        };
        let texture =
            [Texture::Smooth, Texture::Grain, Texture::Clouds, Texture::Stripes, Texture::Grid]
                [dice.weighted(&[3, 3, 2, 1, 1])];
        let marks = (0..dice.weighted(&[5, 2, 2, 1])).map(|_| Mark::draw(dice)).collect();
        let depth = dice.between(4.0, 14.0);
        Self { from, to, blend, texture, depth, seed: dice.bits(), marks }
    }

    /// The colour at a point, before it is rounded.
    pub(super) fn at(&self, x: f32, y: f32) -> [f32; 3] {
        let t = match self.blend {
            Blend::Gradient(dx, dy) => dx * x + dy * y - dx.min(0.0) - dy.min(0.0),
            Blend::Horizon(height) => f32::from(u8::from(y > height)),
        };
        let marks: f32 = self.marks.iter().filter(|m| m.holds(x, y)).map(|m| m.tone).sum();
        let change = marks + self.depth * self.surface(x, y);
        std::array::from_fn(|c| {
            let (from, to) = (f32::from(self.from[c]), f32::from(self.to[c]));
            from + (to - from) * t + change
        })
    }

    /// -1..1.
    fn surface(&self, x: f32, y: f32) -> f32 {
        let phase = |x: f32| (x * BARS).fract();
        match self.texture {
            Texture::Smooth => 0.0,
            Texture::Grain => self.noise((x * GRAIN_CELLS) as u32, (y * GRAIN_CELLS) as u32),
            Texture::Clouds => {
                let (u, v) = (x * CLOUD_CELLS, y * CLOUD_CELLS);
                let (i, j) = (u as u32, v as u32);
                let (s, t) = (u.fract(), v.fract());
                let line = |j: u32| self.noise(i, j) * (1.0 - s) + self.noise(i + 1, j) * s;
                line(j) * (1.0 - t) + line(j + 1) * t
            }
            Texture::Stripes => {
                if phase(x + 0.4 * y) < 0.5 {
                    0.5
                } else {
                    -0.5
                }
            }
            Texture::Grid => {
                if phase(x).min(phase(y)) < 0.12 {
                    -1.0
                } else {
                    0.1
                }
            }
        }
    }

    /// -1..1, fixed for each cell.
    fn noise(&self, column: u32, row: u32) -> f32 {
        let mut h = self.seed ^ row << 16 ^ column;
        h = (h ^ (h >> 16)).wrapping_mul(0x7feb_352d);
        h = (h ^ (h >> 15)).wrapping_mul(0x846c_a68b);
        h ^= h >> 16;
        (h >> 8) as f32 / (1 << 23) as f32 - 1.0
    }
}

fn tone(dice: &mut Dice) -> [u8; 3] {
    let base = MUTED[dice.below(MUTED.len())];
    let lighter = dice.below(33) as u8;
    base.map(|c| c - 16 + lighter + dice.below(9) as u8 - 4)
}

// === impl Mark ===

impl Mark {
    fn draw(dice: &mut Dice) -> Self {
        let thin = dice.chance(0.6);
        let long = dice.between(0.05, 0.3);
        // A direction without trigonometry, which may differ between machines.
        let t = dice.between(-1.0, 1.0);
        let slant = ((1.0 - t * t) / (1.0 + t * t), 2.0 * t / (1.0 + t * t));
        let tone = dice.between(10.0, 22.0) * if dice.chance(0.5) { 1.0 } else { -1.0 };
        Self {
            centre: (dice.unit(), dice.unit()),
            axes: (long, if thin { 0.008 } else { long * dice.between(0.4, 1.0) }),
            slant,
            tone,
        }
    }

    fn holds(&self, x: f32, y: f32) -> bool {
        let (x, y) = (x - self.centre.0, y - self.centre.1);
        let (cos, sin) = self.slant;
        let (u, v) = ((x * cos + y * sin) / self.axes.0, (y * cos - x * sin) / self.axes.1);
        u * u + v * v <= 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::super::dice::Purpose;
    use super::*;

    #[test]
    fn backgrounds_stay_muted() {
        for index in 0..400 {
            let background =
                Background::draw(&mut Dice::new(Split::Test, Purpose::Scene, 3, index));
            for i in 0..100 {
                let at = background.at((i % 10) as f32 / 10.0, (i / 10) as f32 / 10.0);
                let (low, high) =
                    at.iter().fold((f32::MAX, 0.0_f32), |(l, h), &c| (l.min(c), h.max(c)));
                assert!(low > 30.0 && high < 250.0, "{background:?}");
                assert!(high - low < 40.0, "{background:?} at {i}: {at:?}");
            }
        }
    }
}
