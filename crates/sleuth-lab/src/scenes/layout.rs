use std::fmt;
use std::str::FromStr;

use super::dice::{Dice, Purpose};
use super::{Colour, Kind, Size};

/// Which of three disjoint worlds a scene is drawn from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// For training: never holds nor names a held-out (kind, colour) pair.
    Train,
    /// For choosing among trained models; all pairs.
    Validation,
    /// For the final numbers; all pairs.
    Test,
}

/// No split has that name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownSplit(pub String);

/// One drawn object. Lengths are shares of the image's side; the origin is the top left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its colour.
    pub colour: Colour,
    /// Its size class.
    pub size: Size,
    /// Centre, to the right, 0..1.
    pub x: f32,
    /// Centre, downwards, 0..1.
    pub y: f32,
    /// Side of its bounding square, 0..1.
    pub extent: f32,
    /// Its exact colour: near [`Colour::rgb`], sRGB.
    pub rgb: [u8; 3],
}

/// What lies behind the objects.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Background {
    /// Colour where the gradient starts, sRGB.
    pub from: [u8; 3],
    /// Colour where it ends; equal to `from` on a plain background.
    pub to: [u8; 3],
    /// Direction of the gradient; `|x| + |y|` is 1.
    pub direction: (f32, f32),
    /// Largest change of a channel by noise.
    pub noise: u8,
    /// Fixes the noise.
    pub noise_seed: u32,
}

/// A picture as pure data: 1 to 4 objects that do not touch, on a muted background.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Where it was drawn from.
    pub split: Split,
    /// Its objects; 1 to 4.
    pub objects: Vec<Object>,
    /// What lies behind them.
    pub background: Background,
}

/// Least gap between the boxes of two objects, of the side.
const GAP: f32 = 0.035;
/// Least gap between a box and the image's edge, of the side.
const EDGE: f32 = 0.02;
/// Muted colours, all far from every object's colour.
pub(crate) const MUTED: [[u8; 3]; 6] = [
    [128, 134, 142],
    [142, 148, 136],
    [150, 138, 128],
    [158, 146, 150],
    [134, 144, 152],
    [146, 146, 146],
];

// === impl Split ===

impl Split {
    /// Every split.
    pub const ALL: [Self; 3] = [Self::Train, Self::Validation, Self::Test];

    /// The name used in files and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
        }
    }

    /// Whether scenes and texts of this split may hold a pair.
    pub fn allows(self, kind: Kind, colour: Colour) -> bool {
        self != Self::Train || !is_held_out(kind, colour)
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Split {
    type Err = UnknownSplit;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|s| s.name() == name)
            .ok_or_else(|| UnknownSplit(name.to_owned()))
    }
}

// === impl UnknownSplit ===

impl fmt::Display for UnknownSplit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no split is named `{}`; there are train, validation, test", self.0)
    }
}

impl std::error::Error for UnknownSplit {}

/// Whether a pair is kept out of training: 8 of the 64, each kind and each colour once.
pub fn is_held_out(kind: Kind, colour: Colour) -> bool {
    (3 * kind as usize + 2) % 8 == colour as usize
}

// === impl Scene ===

impl Scene {
    /// Draws scene `index` of a split. Equal arguments give equal scenes, on any machine.
    pub fn draw(split: Split, seed: u64, index: u64) -> Self {
        let mut dice = Dice::new(split, Purpose::Scene, seed, index);
        let count = 1 + dice.weighted(&[2, 3, 4, 3]);
        let mut looks: Vec<(Kind, Colour, Size)> =
            (0..count).map(|_| draw_look(split, &mut dice)).collect();
        // Two alike, so that counting a kind is worth a sentence.
        if count > 1 && dice.chance(0.35) {
            let (kind, colour, _) = looks[0];
            looks[1].0 = kind;
            if split.allows(kind, looks[1].1) && dice.chance(0.3) {
                // Same kind, own colour.
            } else {
                looks[1].1 = colour;
            }
        }
        let extents: Vec<f32> = looks
            .iter()
            .map(|&(kind, _, size)| {
                let (low, high) = size.extent(kind);
                dice.between(low, high)
            })
            .collect();
        let centres = place(&extents, &mut dice);
        let mut objects: Vec<Object> = looks
            .iter()
            .zip(&extents)
            .zip(centres)
            .map(|((&(kind, colour, size), &extent), (x, y))| {
                let rgb = colour.rgb().map(|c| jitter(c, 10, &mut dice));
                Object { kind, colour, size, x, y, extent, rgb }
            })
            .collect();
        dice.shuffle(&mut objects);
        Self { split, objects, background: Background::draw(&mut dice) }
    }

    /// Whether an object has a (kind, colour) pair that training never sees.
    pub fn has_held_out_pair(&self) -> bool {
        self.objects.iter().any(|o| is_held_out(o.kind, o.colour))
    }
}

fn draw_look(split: Split, dice: &mut Dice) -> (Kind, Colour, Size) {
    let size = if dice.chance(0.5) { Size::Small } else { Size::Large };
    loop {
        let kind = Kind::ALL[dice.below(8)];
        let colour = Colour::ALL[dice.below(8)];
        if split.allows(kind, colour) {
            return (kind, colour, size);
        }
    }
}

/// Centres for boxes of these extents, with gaps between them.
fn place(extents: &[f32], dice: &mut Dice) -> Vec<(f32, f32)> {
    'attempt: for _ in 0..12 {
        let mut centres: Vec<(f32, f32)> = Vec::with_capacity(extents.len());
        for (i, &extent) in extents.iter().enumerate() {
            let edge = extent / 2.0 + EDGE;
            let free = (0..16).find_map(|_| {
                let at = (dice.between(edge, 1.0 - edge), dice.between(edge, 1.0 - edge));
                let clear = centres.iter().zip(&extents[..i]).all(|(c, e)| {
                    let apart = f32::midpoint(extent, *e) + GAP;
                    (c.0 - at.0).abs() >= apart || (c.1 - at.1).abs() >= apart
                });
                clear.then_some(at)
            });
            match free {
                Some(at) => centres.push(at),
                None => continue 'attempt,
            }
        }
        return centres;
    }
    // One quarter of the image each: the largest extent leaves room for the gaps.
    let mut quarters = [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5)];
    dice.shuffle(&mut quarters);
    extents
        .iter()
        .zip(quarters)
        .map(|(&extent, (left, top))| {
            let edge = extent / 2.0 + EDGE;
            (left + dice.between(edge, 0.5 - edge), top + dice.between(edge, 0.5 - edge))
        })
        .collect()
}

/// Moves a channel by at most `most`, staying in range.
fn jitter(channel: u8, most: u8, dice: &mut Dice) -> u8 {
    let most = usize::from(most);
    let moved = usize::from(channel) + dice.below(2 * most + 1);
    moved.saturating_sub(most).min(255) as u8
}

// === impl Background ===

impl Background {
    fn draw(dice: &mut Dice) -> Self {
        let tone = |dice: &mut Dice| MUTED[dice.below(MUTED.len())].map(|c| jitter(c, 8, dice));
        let from = tone(dice);
        let to = if dice.chance(0.5) { tone(dice) } else { from };
        let t = dice.between(-1.0, 1.0);
        let direction = (t, if dice.chance(0.5) { 1.0 - t.abs() } else { t.abs() - 1.0 });
        Self { from, to, direction, noise: dice.below(9) as u8, noise_seed: dice.bits() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_arguments_give_equal_scenes_and_splits_differ() {
        assert_eq!(Scene::draw(Split::Train, 7, 3), Scene::draw(Split::Train, 7, 3));
        assert_ne!(
            Scene::draw(Split::Validation, 7, 3).objects,
            Scene::draw(Split::Test, 7, 3).objects
        );
        assert_ne!(Scene::draw(Split::Train, 7, 3), Scene::draw(Split::Train, 8, 3));
    }

    #[test]
    fn boxes_keep_their_gaps_and_stay_inside() {
        for index in 0..4000 {
            let scene = Scene::draw(Split::Test, 1, index);
            assert!((1..=4).contains(&scene.objects.len()));
            for (i, a) in scene.objects.iter().enumerate() {
                for c in [a.x, a.y] {
                    assert!(c - a.extent / 2.0 >= 0.0 && c + a.extent / 2.0 <= 1.0);
                }
                for b in &scene.objects[..i] {
                    let apart = f32::midpoint(a.extent, b.extent) + GAP - 1e-5;
                    assert!((a.x - b.x).abs() >= apart || (a.y - b.y).abs() >= apart);
                }
            }
        }
    }

    #[test]
    fn held_out_pairs_are_drawn_in_test_and_never_in_training() {
        let share = |split| {
            (0..4000).filter(|&i| Scene::draw(split, 5, i).has_held_out_pair()).count() as f32
                / 4000.0
        };
        assert!(share(Split::Train).abs() < f32::EPSILON);
        for split in [Split::Validation, Split::Test] {
            assert!((0.15..0.5).contains(&share(split)), "{split}: {}", share(split));
        }
    }

    #[test]
    fn each_kind_and_each_colour_is_held_out_once() {
        for kind in Kind::ALL {
            assert_eq!(Colour::ALL.iter().filter(|&&c| is_held_out(kind, c)).count(), 1);
        }
        for colour in Colour::ALL {
            assert_eq!(Kind::ALL.iter().filter(|&&k| is_held_out(k, colour)).count(), 1);
        }
    }

    #[test]
    fn no_background_comes_near_an_object_colour() {
        for muted in MUTED {
            for colour in Colour::ALL {
                let squared: i32 = muted
                    .iter()
                    .zip(colour.rgb())
                    .map(|(&a, b)| (i32::from(a) - i32::from(b)).pow(2))
                    .sum();
                assert!(squared > 90 * 90, "{muted:?} is {squared} from {colour:?}");
            }
        }
    }

    #[test]
    fn split_names_parse_back() {
        for split in Split::ALL {
            assert_eq!(split.name().parse::<Split>(), Ok(split));
        }
        assert!("dev".parse::<Split>().is_err());
    }
}
