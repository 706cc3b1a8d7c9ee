use super::{Colour, Kind, LETTERS, Object, Pattern, Scene, Size};

/// What a patch of the picture shows.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PatchTruth {
    /// The object that most of the patch shows.
    pub shown: Option<Shown>,
    /// A letter of the sign: its place in [`LETTERS`].
    pub letter: Option<usize>,
}

/// How an object looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Shown {
    pub kind: Kind,
    pub colour: Colour,
    pub size: Size,
    pub pattern: Pattern,
    pub turned: bool,
}

/// Classes of each thing that is asked of a patch: kind, colour, size, pattern, stance, letter. The
/// last class of each stands for nothing.
pub const PATCH_GROUPS: [usize; 6] = [
    Kind::ALL.len() + 1,
    Colour::ALL.len() + 1,
    Size::ALL.len() + 1,
    Pattern::ALL.len() + 1,
    3,
    LETTERS.len() + 1,
];

/// A patch shows an object that covers at least this share of it.
const PATCH_SHARE: f32 = 0.2;
/// A patch shows a letter whose box has at least this share of it.
const LETTER_SHARE: f32 = 0.25;
/// Points per axis by which shares are measured.
const POINTS: usize = 8;

/// What each of `patches * patches` equal patches shows, row by row: the object of which most is
/// visible there, if that is at least a fifth of the patch. The patch that shows most of an object
/// shows it in any case, unless it shows more of another.
pub fn patch_truth(scene: &Scene, patches: u32) -> Vec<PatchTruth> {
    let n = patches as usize;
    let shares = visible_shares(scene, n);
    let best: Vec<f32> =
        (0..scene.objects.len()).map(|o| shares.iter().map(|s| s[o]).fold(0.0, f32::max)).collect();
    let mut truth: Vec<PatchTruth> = shares
        .iter()
        .map(|shares| {
            let most = (0..shares.len()).max_by(|&a, &b| shares[a].total_cmp(&shares[b]));
            let most = most
                .filter(|&o| shares[o] > 0.0 && (shares[o] >= PATCH_SHARE || shares[o] >= best[o]));
            let shown = most.map(|o| Shown::from(&scene.objects[o]));
            PatchTruth { shown, letter: None }
        })
        .collect();
    mark_letters(scene, n, &mut truth);
    truth
}

/// For each patch, the share of it that shows each object; what lies in front hides what is behind.
fn visible_shares(scene: &Scene, n: usize) -> Vec<Vec<f32>> {
    let unit = 1.0 / (POINTS * POINTS) as f32;
    let mut shares = vec![vec![0.0; scene.objects.len()]; n * n];
    for (patch, shares) in shares.iter_mut().enumerate() {
        let (left, top) = ((patch % n) as f32 / n as f32, (patch / n) as f32 / n as f32);
        let reach = 1.0 / n as f32;
        let near = |o: &Object| {
            let [l, t, r, b] = o.bounds();
            l < left + reach && r > left && t < top + reach && b > top
        };
        if !scene.objects.iter().any(near) {
            continue;
        }
        for point in 0..POINTS * POINTS {
            let at = |i: usize| (i as f32 + 0.5) / (POINTS * n) as f32;
            let (x, y) = (left + at(point % POINTS), top + at(point / POINTS));
            let front =
                scene.objects.iter().enumerate().rev().find(|(_, o)| near(o) && o.covers(x, y));
            if let Some((o, _)) = front {
                shares[o] += unit;
            }
        }
    }
    shares
}

/// Marks each patch with the letter whose box has most of it.
fn mark_letters(scene: &Scene, n: usize, truth: &mut [PatchTruth]) {
    let Some(sign) = &scene.sign else { return };
    let letters: Vec<_> = sign.letters().collect();
    let area = 1.0 / (n * n) as f32;
    for (patch, truth) in truth.iter_mut().enumerate() {
        let (left, top) = ((patch % n) as f32 / n as f32, (patch / n) as f32 / n as f32);
        let reach = 1.0 / n as f32;
        let share = |b: &[f32; 4]| {
            let along = |low: f32, high: f32, start: f32| {
                (high.min(start + reach) - low.max(start)).max(0.0)
            };
            along(b[0], b[2], left) * along(b[1], b[3], top) / area
        };
        let most = letters.iter().max_by(|a, b| share(&a.1).total_cmp(&share(&b.1)));
        truth.letter = most.filter(|(_, b)| share(b) >= LETTER_SHARE).map(|(class, _)| *class);
    }
}

// === impl PatchTruth ===

impl PatchTruth {
    /// The class in each of [`PATCH_GROUPS`].
    pub fn classes(&self) -> [u32; PATCH_GROUPS.len()] {
        let shown = |class: fn(Shown) -> usize| self.shown.map(class);
        let found = [
            shown(|s| s.kind as usize),
            shown(|s| s.colour as usize),
            shown(|s| s.size as usize),
            shown(|s| s.pattern as usize),
            shown(|s| usize::from(s.turned)),
            self.letter,
        ];
        std::array::from_fn(|group| found[group].unwrap_or(PATCH_GROUPS[group] - 1) as u32)
    }
}

// === impl Shown ===

impl From<&Object> for Shown {
    fn from(o: &Object) -> Self {
        Self { kind: o.kind, colour: o.colour, size: o.size, pattern: o.pattern, turned: o.turned }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Split;
    use super::*;

    #[test]
    fn positions_are_class_numbers() {
        assert!(Kind::ALL.iter().enumerate().all(|(i, k)| *k as usize == i));
        assert!(Colour::ALL.iter().enumerate().all(|(i, c)| *c as usize == i));
        assert!(Size::ALL.iter().enumerate().all(|(i, s)| *s as usize == i));
        assert!(Pattern::ALL.iter().enumerate().all(|(i, p)| *p as usize == i));
        let nothing = PatchTruth::default().classes();
        assert!(nothing.iter().zip(PATCH_GROUPS).all(|(&c, size)| c as usize + 1 == size));
    }

    #[test]
    fn every_object_is_shown_by_a_patch_and_only_near_itself() {
        for index in 0..300 {
            let scene = Scene::draw(Split::Test, 2, index);
            let truth = patch_truth(&scene, 12);
            assert_eq!(truth.len(), 144);
            let near = |p: usize, o: &Object| {
                let centre = |i: usize| (i as f32 + 0.5) / 12.0;
                let reach = o.extent / 2.0 + 0.5 / 12.0;
                (centre(p % 12) - o.x).abs() < reach && (centre(p / 12) - o.y).abs() < reach
            };
            for o in &scene.objects {
                let look = Some(Shown::from(o));
                assert!((0..144).any(|p| near(p, o) && truth[p].shown == look), "{index}: {o:?}");
            }
            for (p, shown) in truth.iter().enumerate().filter_map(|(p, t)| Some((p, t.shown?))) {
                assert!(scene.objects.iter().any(|o| Shown::from(o) == shown && near(p, o)));
            }
        }
    }

    #[test]
    fn a_sign_shows_its_letters_from_left_to_right() {
        for index in 0..200 {
            let scene = Scene::draw(Split::Test, 6, index);
            let truth = patch_truth(&scene, 24);
            let mut found: Vec<usize> = Vec::new();
            for column in 0..24 {
                let letter = (0..24).find_map(|row| truth[row * 24 + column].letter);
                if let Some(letter) = letter
                    && found.last() != Some(&letter)
                {
                    found.push(letter);
                }
            }
            let said: String = found.into_iter().map(|l| LETTERS[l]).collect();
            let mut word = scene.sign.map_or("", |s| s.word.text()).to_owned();
            // Twice the same letter in a row looks like one.
            word = word.replace("OO", "O").replace("ZZ", "Z");
            assert_eq!(said, word, "{index}");
        }
    }
}
