mod outline;
mod parts;

use std::sync::LazyLock;

pub(super) use parts::{Paint, Part};

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Kind {
    Circle,
    Square,
    Triangle,
    Star,
    Ring,
    Cross,
    Diamond,
    Heart,
    Crescent,
    Arrow,
    House,
    Tree,
    Cup,
    Fish,
    Car,
    Boat,
    Flower,
    Mushroom,
    Umbrella,
    Key,
    Bottle,
    Snowman,
    Chair,
    Butterfly,
}

/// An object's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Size {
    /// 26 to 36 % of the image's side.
    Large,
    /// At least 14 % of the side, and under 3 % of the image's area.
    Small,
}

/// Points per axis by which a shape's area is measured.
const GRID: usize = 128;
/// A small object covers less than this share of the image.
const SMALL_AREA: f32 = 0.03;

// === impl Kind ===

impl Kind {
    /// Every kind; the position is the kind's class number.
    pub const ALL: [Self; 24] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Star,
        Self::Ring,
        Self::Cross,
        Self::Diamond,
        Self::Heart,
        Self::Crescent,
        Self::Arrow,
        Self::House,
        Self::Tree,
        Self::Cup,
        Self::Fish,
        Self::Car,
        Self::Boat,
        Self::Flower,
        Self::Mushroom,
        Self::Umbrella,
        Self::Key,
        Self::Bottle,
        Self::Snowman,
        Self::Chair,
        Self::Butterfly,
    ];

    /// The word for one, and the word for several.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Circle => ("circle", "circles"),
            Self::Square => ("square", "squares"),
            Self::Triangle => ("triangle", "triangles"),
            Self::Star => ("star", "stars"),
            Self::Ring => ("ring", "rings"),
            Self::Cross => ("cross", "crosses"),
            Self::Diamond => ("diamond", "diamonds"),
            Self::Heart => ("heart", "hearts"),
            Self::Crescent => ("crescent", "crescents"),
            Self::Arrow => ("arrow", "arrows"),
            Self::House => ("house", "houses"),
            Self::Tree => ("tree", "trees"),
            Self::Cup => ("cup", "cups"),
            Self::Fish => ("fish", "fish"),
            Self::Car => ("car", "cars"),
            Self::Boat => ("boat", "boats"),
            Self::Flower => ("flower", "flowers"),
            Self::Mushroom => ("mushroom", "mushrooms"),
            Self::Umbrella => ("umbrella", "umbrellas"),
            Self::Key => ("key", "keys"),
            Self::Bottle => ("bottle", "bottles"),
            Self::Snowman => ("snowman", "snowmen"),
            Self::Chair => ("chair", "chairs"),
            Self::Butterfly => ("butterfly", "butterflies"),
        }
    }

    /// The word for one.
    pub const fn word(self) -> &'static str {
        self.words().0
    }

    /// The word for several.
    pub const fn plural(self) -> &'static str {
        self.words().1
    }

    /// Whether anyone would see, and say, that it stands upside down.
    pub const fn has_up(self) -> bool {
        matches!(
            self,
            Self::House
                | Self::Tree
                | Self::Cup
                | Self::Car
                | Self::Boat
                | Self::Flower
                | Self::Mushroom
                | Self::Umbrella
                | Self::Bottle
                | Self::Snowman
                | Self::Chair
        )
    }

    /// What it is drawn of, in order; later parts cover earlier ones.
    pub(super) const fn parts(self) -> &'static [Part] {
        parts::of(self)
    }

    /// Whether the point is inside the shape; `u` points right, `v` down, and the bounding square
    /// is -1..1 on both.
    pub(crate) fn holds(self, u: f32, v: f32) -> bool {
        self.parts().iter().any(|part| (part.holds)(u, v))
    }

    /// The share of its bounding square that a shape fills, measured on a grid.
    pub(crate) fn fill(self) -> f32 {
        static FILLS: LazyLock<[f32; Kind::ALL.len()]> = LazyLock::new(|| Kind::ALL.map(measure));
        FILLS[self as usize]
    }
}

fn measure(kind: Kind) -> f32 {
    let at = |i: usize| (i as f32 + 0.5) / GRID as f32 * 2.0 - 1.0;
    let hits = (0..GRID * GRID).filter(|&i| kind.holds(at(i % GRID), at(i / GRID))).count();
    hits as f32 / (GRID * GRID) as f32
}

// === impl Size ===

impl Size {
    /// Both sizes; the position is the size's class number.
    pub const ALL: [Self; 2] = [Self::Large, Self::Small];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Small => "small",
        }
    }

    /// The other one.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Large => Self::Small,
            Self::Small => Self::Large,
        }
    }

    /// Range of the extent of an object of this kind, of the image's side.
    pub(crate) fn extent(self, kind: Kind) -> (f32, f32) {
        match self {
            Self::Large => (0.26, 0.36),
            Self::Small => (0.14, (0.97 * SMALL_AREA / kind.fill()).sqrt().min(0.19)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_fill_their_square_and_stay_inside() {
        for kind in Kind::ALL {
            let fill = kind.fill();
            assert!((0.2..0.9).contains(&fill), "{kind:?} fills {fill}");
            let reach = |axis: fn(f32, f32) -> (f32, f32)| {
                (0..400).any(|i| {
                    let t = i as f32 / 200.0 - 1.0;
                    let (u, v) = axis(t, 0.86);
                    kind.holds(u, v)
                })
            };
            assert!(reach(|t, e| (t, e)) || reach(|t, e| (t, -e)) || reach(|t, e| (e, t)));
            for i in 0..200 {
                let t = i as f32 / 100.0 - 1.0;
                for (u, v) in [(t, 1.02), (t, -1.02), (1.02, t), (-1.02, t)] {
                    assert!(!kind.holds(u, v), "{kind:?} leaves its square at {u},{v}");
                }
            }
        }
    }

    #[test]
    fn a_small_object_covers_less_than_three_percent() {
        for kind in Kind::ALL {
            let (low, high) = Size::Small.extent(kind);
            assert!(low < high, "{kind:?}");
            assert!(high * high * kind.fill() < SMALL_AREA);
        }
    }

    /// Kinds are told apart by their outlines alone: no two share nearly all of their area.
    #[test]
    fn no_two_outlines_are_alike() {
        let at = |i: usize| (i as f32 + 0.5) / 48.0 * 2.0 - 1.0;
        let points = || (0..48 * 48).map(|i| (at(i % 48), at(i / 48)));
        for (i, a) in Kind::ALL.into_iter().enumerate() {
            for b in Kind::ALL.into_iter().take(i) {
                let (mut both, mut either) = (0, 0);
                for (u, v) in points() {
                    let (a, b) = (a.holds(u, v), b.holds(u, v));
                    both += usize::from(a && b);
                    either += usize::from(a || b);
                }
                let share = both as f32 / either as f32;
                assert!(share < 0.86, "{a:?} and {b:?} share {share}");
            }
        }
    }
}
