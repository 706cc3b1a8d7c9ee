use super::dice::Dice;

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

/// What the colour is laid out in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// One even colour.
    Plain,
    /// Parallel bars.
    Striped,
    /// Discs on a grid.
    Dotted,
    /// Squares like a chessboard's.
    Checkered,
}

/// Largest change of a channel of a colour's middle.
const JITTER: usize = 34;
/// A shade is nearer to its own colour's middle than to another's by this factor.
const CLEARLY: f32 = 1.6;
/// How far a pattern's second shade goes towards white or black.
const SECOND: f32 = 0.55;

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
            Self::Red => [208, 32, 40],
            Self::Green => [36, 152, 62],
            Self::Blue => [40, 82, 212],
            Self::Yellow => [242, 218, 50],
            Self::Purple => [136, 48, 172],
            Self::Orange => [242, 130, 28],
            Self::White => [242, 242, 242],
            Self::Black => [22, 22, 24],
        }
    }

    /// A shade that anyone would call by this colour's name.
    pub(super) fn shade(self, dice: &mut Dice) -> [u8; 3] {
        for _ in 0..16 {
            let shade = self.rgb().map(|c| {
                let moved = usize::from(c) + dice.below(2 * JITTER + 1);
                moved.saturating_sub(JITTER).min(255) as u8
            });
            if self.is_clear(shade) {
                return shade;
            }
        }
        self.rgb()
    }

    /// Whether a shade is clearly nearest to this colour.
    fn is_clear(self, shade: [u8; 3]) -> bool {
        let own = distance(shade, self.rgb());
        let greyish = |[r, g, b]: [u8; 3]| r.max(g).max(b) - r.min(g).min(b) <= 22;
        let is_grey = matches!(self, Self::White | Self::Black);
        Self::ALL.into_iter().all(|c| c == self || CLEARLY * own < distance(shade, c.rgb()))
            && (!is_grey || greyish(shade))
    }
}

/// A distance that weighs channels about as eyes do ("redmean").
fn distance(a: [u8; 3], b: [u8; 3]) -> f32 {
    let [r, g, bl] = std::array::from_fn(|c| f32::from(a[c]) - f32::from(b[c]));
    let mean = f32::midpoint(f32::from(a[0]), f32::from(b[0])) / 256.0;
    ((2.0 + mean) * r * r + 4.0 * g * g + (3.0 - mean) * bl * bl).sqrt()
}

/// The other shade of a pattern: towards black from a light one, towards white from a dark one.
pub(super) fn second_shade(rgb: [u8; 3]) -> [u8; 3] {
    let [r, g, b] = rgb.map(f32::from);
    let light = 0.3 * r + 0.59 * g + 0.11 * b > 128.0;
    let goal = if light { 0.0 } else { 255.0 };
    rgb.map(|c| (f32::from(c) + (goal - f32::from(c)) * SECOND) as u8)
}

// === impl Pattern ===

impl Pattern {
    /// Every pattern; the position is the pattern's class number.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Striped, Self::Dotted, Self::Checkered];

    /// The word for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Striped => "striped",
            Self::Dotted => "dotted",
            Self::Checkered => "checkered",
        }
    }

    /// Whether a point of an object (-1..1 on both axes) has the second shade.
    pub(super) fn is_second(self, u: f32, v: f32) -> bool {
        /// Of a pattern, in halves of the extent.
        const PERIOD: f32 = 0.42;
        let phase = |x: f32| (x / PERIOD + 64.0).fract();
        match self {
            Self::Plain => false,
            Self::Striped => phase(u + 0.35 * v) < 0.5,
            Self::Dotted => {
                let (u, v) = (phase(u) - 0.5, phase(v) - 0.5);
                u * u + v * v < 0.11
            }
            Self::Checkered => (phase(u / 1.2) < 0.5) != (phase(v / 1.2) < 0.5),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::super::dice::Purpose;
    use super::*;

    #[test]
    fn shades_vary_and_stay_clearly_of_their_colour() {
        let mut dice = Dice::new(Split::Test, Purpose::Scene, 1, 1);
        for colour in Colour::ALL {
            let shades: Vec<_> = (0..300).map(|_| colour.shade(&mut dice)).collect();
            assert!(shades.iter().all(|&s| colour.is_clear(s)), "{colour:?}");
            let own = shades.iter().filter(|&&s| s == colour.rgb()).count();
            assert!(own < 60, "{colour:?} fell back {own} times");
        }
    }

    #[test]
    fn the_second_shade_is_clearly_another() {
        for colour in Colour::ALL {
            let (a, b) = (colour.rgb(), second_shade(colour.rgb()));
            assert!(distance(a, b) > 120.0, "{colour:?}: {a:?} {b:?}");
        }
    }

    #[test]
    fn every_pattern_but_plain_has_both_shades() {
        for pattern in Pattern::ALL {
            let at = |i: usize| (i as f32 + 0.5) / 20.0 - 1.0;
            let second =
                (0..1600).filter(|i| pattern.is_second(at(i % 40), at(i / 40))).count() as f32;
            let share = second / 1600.0;
            let expected = if pattern == Pattern::Plain { 0.0..0.01 } else { 0.25..0.6 };
            assert!(expected.contains(&share), "{pattern:?} {share}");
        }
    }
}
