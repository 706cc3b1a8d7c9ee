/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// A filled circle.
    Circle,
    /// A filled square, sides upright.
    Square,
    /// A triangle that points up.
    Triangle,
    /// A star of five points.
    Star,
    /// A circle with a round hole.
    Ring,
    /// An upright cross with equal arms.
    Cross,
    /// A rhombus taller than wide.
    Diamond,
    /// A heart.
    Heart,
}

/// An object's colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Colour {
    Red,
    Green,
    Blue,
    Yellow,
    Purple,
    Orange,
    White,
    Black,
}

/// An object's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Size {
    /// 34 to 40 % of the image's side.
    Large,
    /// At least 16 % of the side, and under 3 % of the image's area.
    Small,
}

/// Half the width of a cross's arm, of half the extent.
const ARM: f32 = 0.32;
/// Radius of a ring's hole, of half the extent.
const HOLE: f32 = 0.52;
/// Half the side of a square, of half the extent: a square as wide as a circle looks larger.
const SQUARE: f32 = 0.9;
/// Half the width of a diamond, of half the extent.
const DIAMOND: f32 = 0.75;

// === impl Kind ===

impl Kind {
    /// Every kind; the position is the kind's class number.
    pub const ALL: [Self; 8] = [
        Self::Circle,
        Self::Square,
        Self::Triangle,
        Self::Star,
        Self::Ring,
        Self::Cross,
        Self::Diamond,
        Self::Heart,
    ];

    /// The word for one.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Circle => "circle",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Star => "star",
            Self::Ring => "ring",
            Self::Cross => "cross",
            Self::Diamond => "diamond",
            Self::Heart => "heart",
        }
    }

    /// The word for several.
    pub const fn plural(self) -> &'static str {
        match self {
            Self::Circle => "circles",
            Self::Square => "squares",
            Self::Triangle => "triangles",
            Self::Star => "stars",
            Self::Ring => "rings",
            Self::Cross => "crosses",
            Self::Diamond => "diamonds",
            Self::Heart => "hearts",
        }
    }

    /// The share of its bounding square that a shape fills, rounded up.
    pub(crate) const fn fill(self) -> f32 {
        match self {
            Self::Circle => 0.79,
            Self::Square => 0.82,
            Self::Triangle => 0.45,
            Self::Star => 0.31,
            Self::Ring => 0.58,
            Self::Cross => 0.55,
            Self::Diamond => 0.38,
            Self::Heart => 0.71,
        }
    }

    /// Whether the point is inside the shape; `u` points right, `v` down, and the bounding square
    /// is -1..1 on both.
    #[inline]
    pub(crate) fn holds(self, u: f32, v: f32) -> bool {
        match self {
            Self::Circle => u * u + v * v <= 1.0,
            Self::Square => u.abs() <= SQUARE && v.abs() <= SQUARE,
            Self::Triangle => v <= 0.86 && 1.78 * u.abs() <= v + 0.92,
            Self::Star => in_star(u, v - 0.05),
            Self::Ring => (HOLE * HOLE..=1.0).contains(&(u * u + v * v)),
            Self::Cross => u.abs().min(v.abs()) <= ARM && u.abs().max(v.abs()) <= 1.0,
            Self::Diamond => u.abs() / DIAMOND + v.abs() <= 1.0,
            Self::Heart => in_heart(u, v),
        }
    }
}

/// A pentagram with its inner pentagon: the points inside at least four of its five lines.
#[inline]
fn in_star(u: f32, v: f32) -> bool {
    /// Distance of a line from the centre, for points at radius 1.05: cos 72° of it.
    const INNER: f32 = 0.3245;
    const NORMALS: [(f32, f32); 5] = [
        (0.0, -1.0),
        (0.951_056_5, -0.309_017),
        (-0.951_056_5, -0.309_017),
        (0.587_785_25, 0.809_017),
        (-0.587_785_25, 0.809_017),
    ];
    let inside = NORMALS.iter().filter(|(a, b)| a * u + b * v <= INNER).count();
    inside >= 4
}

/// The curve (x² + y² - 1)³ = x² y³, scaled into the square.
#[inline]
fn in_heart(u: f32, v: f32) -> bool {
    let x = 1.16 * u;
    let y = 0.12 - 1.12 * v;
    let (xx, yy) = (x * x, y * y);
    let a = xx + yy - 1.0;
    a * a * a <= xx * yy * y
}

// === impl Colour ===

impl Colour {
    /// Every colour; the position is the colour's class number.
    pub const ALL: [Self; 8] = [
        Self::Red,
        Self::Green,
        Self::Blue,
        Self::Yellow,
        Self::Purple,
        Self::Orange,
        Self::White,
        Self::Black,
    ];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Red => "red",
            Self::Green => "green",
            Self::Blue => "blue",
            Self::Yellow => "yellow",
            Self::Purple => "purple",
            Self::Orange => "orange",
            Self::White => "white",
            Self::Black => "black",
        }
    }

    /// The middle of its range, sRGB.
    pub const fn rgb(self) -> [u8; 3] {
        match self {
            Self::Red => [214, 34, 38],
            Self::Green => [34, 150, 60],
            Self::Blue => [36, 74, 214],
            Self::Yellow => [246, 222, 42],
            Self::Purple => [128, 40, 168],
            Self::Orange => [246, 130, 22],
            Self::White => [246, 246, 246],
            Self::Black => [18, 18, 18],
        }
    }
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
            Self::Large => (0.34, 0.40),
            Self::Small => (0.16, (0.029 / kind.fill()).sqrt().min(0.22)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(kind: Kind) -> f32 {
        const N: usize = 400;
        let at = |i: usize| (i as f32 + 0.5) / N as f32 * 2.0 - 1.0;
        let hits = (0..N * N).filter(|&i| kind.holds(at(i % N), at(i / N))).count();
        hits as f32 / (N * N) as f32
    }

    #[test]
    fn fill_is_an_upper_bound_close_to_the_drawn_share() {
        for kind in Kind::ALL {
            let share = filled(kind);
            assert!(share <= kind.fill(), "{kind:?} fills {share}");
            assert!(share + 0.06 >= kind.fill(), "{kind:?} fills only {share}");
        }
    }

    #[test]
    fn shapes_stay_inside_their_square() {
        for kind in Kind::ALL {
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
            assert!(low < high);
            assert!(high * high * kind.fill() < 0.03);
        }
    }
}
