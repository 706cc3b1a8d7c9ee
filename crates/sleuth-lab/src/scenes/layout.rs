mod place;

use super::colour::second_shade;
use super::dice::{Dice, Purpose};
use super::fact::CLEARLY_OFF;
use super::{Artefacts, Background, Colour, Kind, Pattern, Sign, Size, Split, is_held_out};
use place::{Plan, place};

/// One drawn object. Lengths are shares of the image's side; the origin is the top left corner.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Object {
    /// What it is.
    pub kind: Kind,
    /// Its colour.
    pub colour: Colour,
    /// Its pattern; small objects are plain.
    pub pattern: Pattern,
    /// Its size class.
    pub size: Size,
    /// Centre, to the right, 0..1.
    pub x: f32,
    /// Centre, downwards, 0..1.
    pub y: f32,
    /// Side of its bounding square, 0..1.
    pub extent: f32,
    /// Its exact colour, sRGB.
    pub rgb: [u8; 3],
    /// Its pattern's other shade, sRGB.
    pub second_rgb: [u8; 3],
    /// Whether it stands upside down.
    pub turned: bool,
    /// Tangent of half its slant; small.
    pub tilt: f32,
}

/// A picture as pure data: 2 to 6 objects, perhaps a sign, on a muted background.
#[derive(Clone, Debug, PartialEq)]
pub struct Scene {
    /// Where it was drawn from.
    pub split: Split,
    /// Its objects, back to front; 2 to 6.
    pub objects: Vec<Object>,
    /// A plate with a word.
    pub sign: Option<Sign>,
    /// What lies behind them.
    pub background: Background,
    /// What became of the picture.
    pub artefacts: Artefacts,
}

/// Most large objects of a scene.
const MOST_LARGE: usize = 3;

/// A `group_id` names no drawn scene.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`group_id` is `{0}`; of a drawn scene it is SPLIT-SEED-INDEX-NAME")]
pub struct NotAScene(pub String);

// === impl Scene ===

impl Scene {
    /// Draws scene `index` of a split. Equal arguments give equal scenes, on any machine.
    pub fn draw(split: Split, seed: u64, index: u64) -> Self {
        let mut dice = Dice::new(split, Purpose::Scene, seed, index);
        loop {
            let scene = Self::attempt(split, &mut dice);
            if scene.is_tellable() {
                return scene;
            }
        }
    }

    /// The scene that a record's `group_id`, `SPLIT-SEED-INDEX-NAME`, is about.
    pub fn of_group(group_id: &str) -> Result<Self, NotAScene> {
        let named = || {
            let mut parts = group_id.splitn(4, '-');
            let (split, seed, index) = (parts.next()?, parts.next()?, parts.next()?);
            parts.next()?;
            Some((split.parse().ok()?, seed.parse().ok()?, index.parse().ok()?))
        };
        let (split, seed, index) = named().ok_or_else(|| NotAScene(group_id.to_owned()))?;
        Ok(Self::draw(split, seed, index))
    }

    fn attempt(split: Split, dice: &mut Dice) -> Self {
        let mut sign = dice.chance(0.5).then(|| Sign::draw(dice));
        let mut objects = draw_objects(split, dice);
        let plan = Plan { overlap: dice.chance(0.15), cut: dice.chance(0.1) };
        place(&mut objects, sign.as_mut(), plan, dice);
        Self {
            split,
            objects,
            sign,
            background: Background::draw(dice),
            artefacts: Artefacts::draw(dice),
        }
    }

    /// Whether there is something to say, and to say falsely, in every taxonomy: a small object that
    /// is alone of its kind and clearly off the middle, and two whose colours may be exchanged.
    fn is_tellable(&self) -> bool {
        let objects = &self.objects;
        let alone = |o: &Object| objects.iter().filter(|p| p.kind == o.kind).count() == 1;
        let off = |c: f32| (c - 0.5).abs() > CLEARLY_OFF;
        let small = |o: &Object| o.size == Size::Small && alone(o) && (off(o.x) || off(o.y));
        let exchangeable = |a: &Object, b: &Object| {
            a.colour != b.colour
                && a.kind != b.kind
                && self.split.allows(a.kind, b.colour)
                && self.split.allows(b.kind, a.colour)
                && alone(a)
                && alone(b)
        };
        objects.len() >= 2
            && objects.iter().any(small)
            && objects.iter().any(|a| objects.iter().any(|b| exchangeable(a, b)))
    }

    /// Whether an object has a (kind, colour) pair that training never sees.
    pub fn has_held_out_pair(&self) -> bool {
        self.objects.iter().any(|o| is_held_out(o.kind, o.colour))
    }
}

/// Objects without places, some of them alike, so that counting a kind is worth a sentence.
fn draw_objects(split: Split, dice: &mut Dice) -> Vec<Object> {
    let count = 2 + dice.weighted(&[4, 5, 5, 4, 3]);
    let mut large = 0;
    let mut objects: Vec<Object> = Vec::with_capacity(count);
    let alike = if dice.chance(0.4) { 1 + dice.weighted(&[3, 1]) } else { 0 };
    for i in 0..count {
        let model = (1..=alike).contains(&i).then(|| objects[0]);
        let mut size = if dice.chance(0.5) { Size::Small } else { Size::Large };
        if large == MOST_LARGE {
            size = Size::Small;
        }
        large += usize::from(size == Size::Large);
        objects.push(Object::draw(split, size, model, dice));
    }
    objects
}

// === impl Object ===

impl Object {
    /// `model`: another object whose kind, and half the time whose colour, is taken.
    fn draw(split: Split, size: Size, model: Option<Self>, dice: &mut Dice) -> Self {
        let (kind, colour) = loop {
            let kind = model.map_or_else(|| Kind::ALL[dice.below(Kind::ALL.len())], |m| m.kind);
            let colour = model
                .filter(|_| dice.chance(0.5))
                .map_or_else(|| Colour::ALL[dice.below(Colour::ALL.len())], |m| m.colour);
            if split.allows(kind, colour) {
                break (kind, colour);
            }
        };
        let large = size == Size::Large;
        let pattern = if large && dice.chance(0.4) {
            Pattern::ALL[1 + dice.below(3)]
        } else {
            Pattern::Plain
        };
        let (low, high) = size.extent(kind);
        let rgb = colour.shade(dice);
        Self {
            kind,
            colour,
            pattern,
            size,
            x: 0.5,
            y: 0.5,
            extent: dice.between(low, high),
            rgb,
            second_rgb: second_shade(rgb),
            turned: large && kind.has_up() && dice.chance(0.12),
            tilt: dice.between(-0.09, 0.09),
        }
    }

    /// Left, top, right, bottom.
    pub(crate) fn bounds(&self) -> [f32; 4] {
        let half = self.extent / 2.0;
        [self.x - half, self.y - half, self.x + half, self.y + half]
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
    fn held_out_pairs_are_drawn_in_test_and_never_in_training() {
        let share = |split| {
            (0..2000).filter(|&i| Scene::draw(split, 5, i).has_held_out_pair()).count() as f32
                / 2000.0
        };
        assert!(share(Split::Train).abs() < f32::EPSILON);
        for split in [Split::Validation, Split::Test] {
            assert!((0.15..0.6).contains(&share(split)), "{split}: {}", share(split));
        }
    }

    #[test]
    fn small_objects_are_plain_and_upright_and_every_look_occurs() {
        let scenes: Vec<_> = (0..1500).map(|i| Scene::draw(Split::Test, 4, i)).collect();
        let objects = || scenes.iter().flat_map(|s| &s.objects);
        for o in objects().filter(|o| o.size == Size::Small) {
            assert!(o.pattern == Pattern::Plain && !o.turned);
        }
        for kind in Kind::ALL {
            assert!(objects().filter(|o| o.kind == kind).count() > 80, "{kind:?}");
            let turned = objects().any(|o| o.kind == kind && o.turned);
            assert_eq!(turned, kind.has_up(), "{kind:?}");
        }
        for n in 2..=6 {
            assert!(scenes.iter().filter(|s| s.objects.len() == n).count() > 60, "{n}");
        }
        assert!(
            scenes.iter().all(|s| {
                s.objects.iter().filter(|o| o.size == Size::Large).count() <= MOST_LARGE
            })
        );
    }
}
