use super::dice::Dice;

/// A word that signs bear: an index into [`SignWord::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SignWord(u8);

/// A plate with a word on it. Lengths are shares of the image's side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sign {
    /// What it says.
    pub word: SignWord,
    /// Centre, to the right, 0..1.
    pub x: f32,
    /// Centre, downwards, 0..1.
    pub y: f32,
    /// Side of one cell of the font; a letter is 5 cells wide and 7 high.
    pub cell: f32,
    /// The plate's colour, sRGB.
    pub plate: [u8; 3],
    /// The letters' and the border's colour, sRGB.
    pub ink: [u8; 3],
}

/// Letters that signs are made of, in the order of their class numbers.
pub const LETTERS: [char; 26] = [
    'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S',
    'T', 'U', 'V', 'W', 'X', 'Y', 'Z',
];

const WORDS: [&str; 24] = [
    "OPEN", "STOP", "EXIT", "SALE", "TAXI", "MILK", "CAFE", "BUS", "ZOO", "GYM", "HOTEL", "PIZZA",
    "FIRE", "FARM", "BOOKS", "JUICE", "TRAIN", "LUNCH", "NORTH", "WATER", "QUIET", "DOCK", "VIEW",
    "KIDS",
];

/// A font of 5×7 cells: for each letter seven rows from the top, the leftmost cell the highest bit.
const FONT: [[u8; 7]; 26] = [
    [14, 17, 17, 31, 17, 17, 17],
    [30, 17, 17, 30, 17, 17, 30],
    [14, 17, 16, 16, 16, 17, 14],
    [30, 17, 17, 17, 17, 17, 30],
    [31, 16, 16, 30, 16, 16, 31],
    [31, 16, 16, 30, 16, 16, 16],
    [14, 17, 16, 23, 17, 17, 14],
    [17, 17, 17, 31, 17, 17, 17],
    [14, 4, 4, 4, 4, 4, 14],
    [7, 2, 2, 2, 2, 18, 12],
    [17, 18, 20, 24, 20, 18, 17],
    [16, 16, 16, 16, 16, 16, 31],
    [17, 27, 21, 21, 17, 17, 17],
    [17, 25, 21, 21, 19, 17, 17],
    [14, 17, 17, 17, 17, 17, 14],
    [30, 17, 17, 30, 16, 16, 16],
    [14, 17, 17, 17, 21, 18, 13],
    [30, 17, 17, 30, 20, 18, 17],
    [15, 16, 16, 14, 1, 1, 30],
    [31, 4, 4, 4, 4, 4, 4],
    [17, 17, 17, 17, 17, 17, 14],
    [17, 17, 17, 17, 17, 10, 4],
    [17, 17, 17, 21, 21, 27, 17],
    [17, 17, 10, 4, 10, 17, 17],
    [17, 17, 10, 4, 4, 4, 4],
    [31, 1, 2, 4, 8, 16, 31],
];

/// Cells from one letter's left edge to the next one's.
const STEP: f32 = 6.0;
/// Cells between letters and the plate's edge.
const MARGIN: f32 = 2.0;
/// Width of the border, in cells.
const BORDER: f32 = 0.6;
/// Strokes are a little wider than a cell, so that they hold at few pixels.
const THICKER: f32 = 0.12;
/// Range of a cell's side.
const CELL: (f32, f32) = (0.0145, 0.0165);

// === impl SignWord ===

impl SignWord {
    /// Every word.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..WORDS.len() as u8).map(Self)
    }

    pub(super) fn draw(dice: &mut Dice) -> Self {
        Self(dice.below(WORDS.len()) as u8)
    }

    /// The word, in capitals.
    pub const fn text(self) -> &'static str {
        WORDS[self.0 as usize]
    }
}

// === impl Sign ===

impl Sign {
    /// A sign at the image's middle; its place is chosen by who lays out the scene.
    pub(super) fn draw(dice: &mut Dice) -> Self {
        let plates: [[u8; 3]; 4] =
            [[244, 242, 236], [236, 226, 196], [238, 232, 160], [214, 222, 226]];
        let inks: [[u8; 3]; 3] = [[24, 24, 28], [52, 30, 24], [24, 34, 66]];
        Self {
            word: SignWord::draw(dice),
            x: 0.5,
            y: 0.5,
            cell: dice.between(CELL.0, CELL.1),
            plate: plates[dice.below(plates.len())],
            ink: inks[dice.below(inks.len())],
        }
    }

    /// The plate's width and height.
    pub fn extent(&self) -> (f32, f32) {
        let letters = self.word.text().len() as f32;
        ((STEP * letters - 1.0 + 2.0 * MARGIN) * self.cell, (7.0 + 2.0 * MARGIN) * self.cell)
    }

    /// The colour at a point of the image, where that lies on the plate.
    pub(super) fn at(&self, x: f32, y: f32) -> Option<[u8; 3]> {
        let (width, height) = self.extent();
        let (u, v) =
            ((x - self.x + width / 2.0) / self.cell, (y - self.y + height / 2.0) / self.cell);
        let (right, bottom) = (width / self.cell, height / self.cell);
        if !(0.0..=right).contains(&u) || !(0.0..=bottom).contains(&v) {
            return None;
        }
        let edge = u.min(v).min(right - u).min(bottom - v);
        let is_ink = edge < BORDER || self.is_letter(u - MARGIN, v - MARGIN);
        Some(if is_ink { self.ink } else { self.plate })
    }

    /// Whether a point, in cells from the first letter's top left corner, is of a letter.
    fn is_letter(&self, u: f32, v: f32) -> bool {
        if u < 0.0 || !(0.0..7.0).contains(&v) {
            return false;
        }
        let (letter, column) = ((u / STEP) as usize, u % STEP);
        let Some(&byte) = self.word.text().as_bytes().get(letter) else { return false };
        [column - THICKER, column + THICKER].into_iter().any(|column| {
            (0.0..5.0).contains(&column)
                && FONT[class_of(byte)][v as usize] >> (4 - column as usize) & 1 == 1
        })
    }

    /// Each letter's class and its box: left, top, right, bottom.
    pub(super) fn letters(&self) -> impl Iterator<Item = (usize, [f32; 4])> {
        let (width, height) = self.extent();
        let (left, top) = (self.x - width / 2.0, self.y - height / 2.0);
        let cell = self.cell;
        self.word.text().bytes().enumerate().map(move |(i, byte)| {
            let start = left + (MARGIN + STEP * i as f32 - 0.5) * cell;
            let (above, below) = (top + (MARGIN - 0.5) * cell, top + (MARGIN + 7.5) * cell);
            (class_of(byte), [start, above, start + STEP * cell, below])
        })
    }
}

/// A capital letter's place in [`LETTERS`].
const fn class_of(byte: u8) -> usize {
    (byte - b'A') as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_short_capitals_that_differ_in_two_letters() {
        for (i, a) in SignWord::all().enumerate() {
            let a = a.text();
            assert!((3..=5).contains(&a.len()) && a.bytes().all(|b| b.is_ascii_uppercase()));
            for b in SignWord::all().take(i).map(SignWord::text) {
                let same = a.bytes().zip(b.bytes()).filter(|(a, b)| a == b).count();
                assert!(a.len().max(b.len()) - same >= 2, "{a} {b}");
            }
        }
    }

    #[test]
    fn no_two_letters_look_alike() {
        for (i, a) in FONT.iter().enumerate() {
            for (j, b) in FONT.iter().enumerate().take(i) {
                let apart: u32 = a.iter().zip(b).map(|(a, b)| (a ^ b).count_ones()).sum();
                assert!(apart >= 2, "{} {}", LETTERS[i], LETTERS[j]);
            }
        }
    }

    #[test]
    fn letters_lie_on_their_plate() {
        for word in SignWord::all() {
            let sign = Sign { word, x: 0.5, y: 0.4, cell: CELL.1, plate: [255; 3], ink: [0; 3] };
            let (width, height) = sign.extent();
            assert!(width < 0.6 && height < 0.2);
            let mut found = String::new();
            for (class, [left, top, right, bottom]) in sign.letters() {
                found.push(LETTERS[class]);
                assert!(left > 0.5 - width / 2.0 && right < 0.5 + width / 2.0 + 1e-6);
                assert!(top > 0.4 - height / 2.0 && bottom < 0.4 + height / 2.0);
                let inside = |i: usize| {
                    let (u, v) = ((i % 20) as f32 / 20.0, (i / 20) as f32 / 20.0);
                    sign.at(left + u * (right - left), top + v * (bottom - top))
                };
                let ink = (0..400).filter(|&i| inside(i) == Some([0; 3])).count();
                assert!((50..260).contains(&ink), "{word:?}: {ink}");
            }
            assert_eq!(found, word.text());
        }
    }
}
