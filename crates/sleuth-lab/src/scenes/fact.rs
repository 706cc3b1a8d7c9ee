use serde::Serialize;

use super::{Colour, Kind, Object, Pattern, Scene, SignWord, Size, Split};

/// Words that pick out objects: a kind, and what else is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Said size.
    pub size: Option<Size>,
    /// Said colour.
    pub colour: Option<Colour>,
    /// Said pattern.
    pub pattern: Option<Pattern>,
    /// Said kind.
    pub kind: Kind,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// All objects; a sign is none.
    Objects,
    /// Objects of a colour.
    Coloured(Colour),
    /// What is so described.
    Described(Description),
}

/// How one object lies to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Relation {
    LeftOf,
    RightOf,
    Above,
    Below,
}

/// A half of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Half {
    Left,
    Right,
    Top,
    Bottom,
}

/// A part of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A half.
    Half(Half),
    /// Where two halves meet: top or bottom, then left or right.
    Corner(Half, Half),
}

/// What one sentence claims of a scene.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fact {
    /// At least one object fits, or none does.
    Presence {
        /// What is said to be there or not.
        what: Description,
        /// Whether it is said to be there.
        present: bool,
    },
    /// All three are there.
    Overview([Description; 3]),
    /// Exactly `number` objects.
    Count {
        /// Of what.
        what: Counted,
        /// 1 to 6.
        number: u8,
    },
    /// What fits has this colour.
    Colour {
        /// Of what.
        what: Description,
        /// The said colour.
        colour: Colour,
    },
    /// What fits has this size.
    Size {
        /// Of what.
        what: Description,
        /// The said size.
        size: Size,
    },
    /// What fits has this pattern.
    Pattern {
        /// Of what.
        what: Description,
        /// The said pattern.
        pattern: Pattern,
    },
    /// What fits stands upright or upside down.
    Stance {
        /// What.
        what: Description,
        /// Whether it is said to stand upside down.
        turned: bool,
    },
    /// Two colour claims in one sentence.
    Colours {
        /// The first thing and its colour.
        first: (Description, Colour),
        /// The second thing and its colour.
        second: (Description, Colour),
    },
    /// Some `a` lies so to some `b`.
    Relation {
        /// The thing placed.
        a: Description,
        /// How.
        relation: Relation,
        /// The thing it is placed by.
        b: Description,
    },
    /// What fits lies in this part of the image.
    Place {
        /// What.
        what: Description,
        /// Where.
        place: Place,
    },
    /// There is a sign, and it says this.
    Written(SignWord),
    /// There is a sign, or there is none.
    Sign(bool),
}

/// Whether a scene bears a claim out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Truth {
    /// Clearly.
    True,
    /// Clearly not.
    False,
    /// People might disagree, so it is never said and never taken for false.
    Unclear,
}

/// Centres further apart than this, of the side, are clearly apart on an axis.
pub(crate) const CLEARLY_APART: f32 = 0.18;
/// A centre further than this from the middle, of the side, is clearly in one half.
pub(crate) const CLEARLY_OFF: f32 = 0.09;

// === impl Description ===

impl Description {
    /// The kind alone.
    pub const fn of(kind: Kind) -> Self {
        Self { size: None, colour: None, pattern: None, kind }
    }

    /// Whether an object is as described.
    pub fn fits(self, object: &Object) -> bool {
        self.kind == object.kind
            && self.colour.is_none_or(|c| c == object.colour)
            && self.size.is_none_or(|s| s == object.size)
            && self.pattern.is_none_or(|p| p == object.pattern)
    }

    /// How many objects of a scene are as described.
    pub fn count(self, scene: &Scene) -> usize {
        scene.objects.iter().filter(|o| self.fits(o)).count()
    }

    fn is_allowed(self, split: Split) -> bool {
        self.colour.is_none_or(|c| split.allows(self.kind, c))
    }
}

// === impl Counted ===

impl Counted {
    /// How many there are.
    pub fn count(self, scene: &Scene) -> usize {
        match self {
            Self::Objects => scene.objects.len(),
            Self::Coloured(colour) => scene.objects.iter().filter(|o| o.colour == colour).count(),
            Self::Described(what) => what.count(scene),
        }
    }
}

// === impl Relation ===

impl Relation {
    /// Every relation.
    pub const ALL: [Self; 4] = [Self::LeftOf, Self::RightOf, Self::Above, Self::Below];

    /// The other way round on the same axis.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::LeftOf => Self::RightOf,
            Self::RightOf => Self::LeftOf,
            Self::Above => Self::Below,
            Self::Below => Self::Above,
        }
    }

    /// Whether `a` lies so to `b`.
    pub fn between(self, a: &Object, b: &Object) -> Truth {
        sign(
            match self {
                Self::LeftOf => b.x - a.x,
                Self::RightOf => a.x - b.x,
                Self::Above => b.y - a.y,
                Self::Below => a.y - b.y,
            } / CLEARLY_APART,
        )
    }
}

// === impl Half ===

impl Half {
    /// Every half.
    pub const ALL: [Self; 4] = [Self::Left, Self::Right, Self::Top, Self::Bottom];

    /// The other half.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Left => Self::Right,
            Self::Right => Self::Left,
            Self::Top => Self::Bottom,
            Self::Bottom => Self::Top,
        }
    }

    /// Whether an object lies in this half.
    pub fn holds(self, object: &Object) -> Truth {
        sign(
            match self {
                Self::Left => 0.5 - object.x,
                Self::Right => object.x - 0.5,
                Self::Top => 0.5 - object.y,
                Self::Bottom => object.y - 0.5,
            } / CLEARLY_OFF,
        )
    }
}

// === impl Place ===

impl Place {
    /// Every half and every corner.
    pub fn all() -> impl Iterator<Item = Self> {
        let corners = [Half::Top, Half::Bottom]
            .into_iter()
            .flat_map(|v| [Half::Left, Half::Right].map(|h| Self::Corner(v, h)));
        Half::ALL.into_iter().map(Self::Half).chain(corners)
    }

    /// Whether an object lies there.
    pub fn holds(self, object: &Object) -> Truth {
        match self {
            Self::Half(half) => half.holds(object),
            Self::Corner(vertical, horizontal) => {
                vertical.holds(object).and(horizontal.holds(object))
            }
        }
    }
}

// === impl Fact ===

impl Fact {
    /// Whether the scene bears it out.
    ///
    /// A claim about something that no object fits is false; where several fit, they must agree.
    pub fn truth(self, scene: &Scene) -> Truth {
        match self {
            Self::Presence { what, present } => is((what.count(scene) > 0) == present),
            Self::Overview(all) => is(all.iter().all(|what| what.count(scene) > 0)),
            Self::Count { what, number } => is(what.count(scene) == usize::from(number)),
            Self::Colour { what, colour } => each(scene, what, |o| is(o.colour == colour)),
            Self::Size { what, size } => each(scene, what, |o| is(o.size == size)),
            Self::Pattern { what, pattern } => each(scene, what, |o| is(o.pattern == pattern)),
            Self::Stance { what, turned } => each(scene, what, |o| is(o.turned == turned)),
            Self::Colours { first, second } => {
                let one = Self::Colour { what: first.0, colour: first.1 }.truth(scene);
                one.and(Self::Colour { what: second.0, colour: second.1 }.truth(scene))
            }
            Self::Relation { a, relation, b } => related(scene, a, relation, b),
            Self::Place { what, place } => each(scene, what, |o| place.holds(o)),
            Self::Written(word) => is(scene.sign.is_some_and(|s| s.word == word)),
            Self::Sign(there) => is(scene.sign.is_some() == there),
        }
    }

    /// What kind of claim it is, in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Presence { present: true, .. } => "presence",
            Self::Presence { present: false, .. } => "absence",
            Self::Overview(_) => "overview",
            Self::Count { .. } => "count",
            Self::Colour { .. } => "colour",
            Self::Size { .. } => "size",
            Self::Pattern { .. } => "pattern",
            Self::Stance { .. } => "stance",
            Self::Colours { .. } => "colours",
            Self::Relation { .. } => "relation",
            Self::Place { .. } => "place",
            Self::Written(_) => "written",
            Self::Sign(_) => "sign",
        }
    }

    /// What it describes, in the order in which it is said.
    pub(crate) fn descriptions(self) -> impl Iterator<Item = Description> {
        let all = match self {
            Self::Presence { what, .. }
            | Self::Colour { what, .. }
            | Self::Size { what, .. }
            | Self::Pattern { what, .. }
            | Self::Stance { what, .. }
            | Self::Place { what, .. }
            | Self::Count { what: Counted::Described(what), .. } => [Some(what), None, None],
            Self::Overview([a, b, c]) => [Some(a), Some(b), Some(c)],
            Self::Colours { first, second } => [Some(first.0), Some(second.0), None],
            Self::Relation { a, b, .. } => [Some(a), Some(b), None],
            Self::Count { .. } | Self::Written(_) | Self::Sign(_) => [None; 3],
        };
        all.into_iter().flatten()
    }

    /// Whether it names only (kind, colour) pairs that a split may name.
    pub(crate) fn is_allowed(self, split: Split) -> bool {
        self.descriptions().all(|d| d.is_allowed(split))
            && match self {
                Self::Colour { what, colour } => split.allows(what.kind, colour),
                Self::Colours { first, second } => {
                    split.allows(first.0.kind, first.1) && split.allows(second.0.kind, second.1)
                }
                _ => true,
            }
    }
}

/// True where all that fit pass, false where none does.
fn each(scene: &Scene, what: Description, pass: impl Fn(&Object) -> Truth) -> Truth {
    let mut fitting = scene.objects.iter().filter(|o| what.fits(o)).map(pass);
    match fitting.next() {
        None => Truth::False,
        Some(first) => {
            if fitting.all(|t| t == first) {
                first
            } else {
                Truth::Unclear
            }
        }
    }
}

/// True where one pair clearly lies so, false where every pair clearly does not.
fn related(scene: &Scene, a: Description, relation: Relation, b: Description) -> Truth {
    let mut found = Truth::False;
    for (i, one) in scene.objects.iter().enumerate() {
        for (j, other) in scene.objects.iter().enumerate() {
            if i == j || !a.fits(one) || !b.fits(other) {
                continue;
            }
            match relation.between(one, other) {
                Truth::True => return Truth::True,
                Truth::Unclear => found = Truth::Unclear,
                Truth::False => {}
            }
        }
    }
    found
}

fn is(value: bool) -> Truth {
    if value { Truth::True } else { Truth::False }
}

fn sign(value: f32) -> Truth {
    if value > 1.0 {
        Truth::True
    } else if value < -1.0 {
        Truth::False
    } else {
        Truth::Unclear
    }
}

// === impl Truth ===

impl Truth {
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::False, _) | (_, Self::False) => Self::False,
            (Self::True, Self::True) => Self::True,
            _ => Self::Unclear,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small red circle top left, a large blue circle top right, and a large striped red house
    /// that stands upside down, at the bottom in the middle. No sign.
    fn scene() -> Scene {
        let mut scene = Scene::draw(Split::Test, 0, 0);
        let model = scene.objects[0];
        let object = |kind, colour, size, x, y| Object {
            kind,
            colour,
            size,
            x,
            y,
            pattern: Pattern::Plain,
            turned: false,
            extent: 0.2,
            ..model
        };
        scene.sign = None;
        scene.objects = vec![
            object(Kind::Circle, Colour::Red, Size::Small, 0.2, 0.2),
            object(Kind::Circle, Colour::Blue, Size::Large, 0.8, 0.2),
            Object {
                pattern: Pattern::Striped,
                turned: true,
                ..object(Kind::House, Colour::Red, Size::Large, 0.5, 0.7)
            },
        ];
        scene
    }

    fn a(colour: Option<Colour>, kind: Kind) -> Description {
        Description { colour, ..Description::of(kind) }
    }

    #[test]
    fn presence_and_counts_are_exact() {
        let s = scene();
        let red_circle = a(Some(Colour::Red), Kind::Circle);
        let presence = |what, present| Fact::Presence { what, present }.truth(&s);
        assert_eq!(presence(red_circle, true), Truth::True);
        assert_eq!(presence(red_circle, false), Truth::False);
        assert_eq!(presence(a(Some(Colour::Blue), Kind::House), false), Truth::True);
        let count = |what, number| Fact::Count { what, number }.truth(&s);
        assert_eq!(count(Counted::Objects, 3), Truth::True);
        assert_eq!(count(Counted::Coloured(Colour::Red), 2), Truth::True);
        assert_eq!(count(Counted::Described(a(None, Kind::Circle)), 2), Truth::True);
        assert_eq!(count(Counted::Described(red_circle), 2), Truth::False);
        let house = a(None, Kind::House);
        assert_eq!(Fact::Overview([red_circle, house, house]).truth(&s), Truth::True);
        assert_eq!(Fact::Overview([red_circle, house, a(None, Kind::Key)]).truth(&s), Truth::False);
    }

    #[test]
    fn a_claim_on_which_fitting_objects_differ_is_unclear() {
        let s = scene();
        let colour = |what, colour| Fact::Colour { what, colour }.truth(&s);
        assert_eq!(colour(a(None, Kind::Circle), Colour::Red), Truth::Unclear);
        assert_eq!(colour(a(None, Kind::Circle), Colour::Green), Truth::False);
        assert_eq!(colour(a(None, Kind::House), Colour::Red), Truth::True);
        assert_eq!(colour(a(None, Kind::Heart), Colour::Red), Truth::False);
    }

    #[test]
    fn looks_and_signs_are_exact() {
        let s = scene();
        let house = Description::of(Kind::House);
        let pattern = |pattern| Fact::Pattern { what: house, pattern }.truth(&s);
        assert_eq!(pattern(Pattern::Striped), Truth::True);
        assert_eq!(pattern(Pattern::Plain), Truth::False);
        assert_eq!(Fact::Stance { what: house, turned: true }.truth(&s), Truth::True);
        assert_eq!(Fact::Stance { what: house, turned: false }.truth(&s), Truth::False);
        assert_eq!(Fact::Sign(false).truth(&s), Truth::True);
        assert!(SignWord::all().all(|w| Fact::Written(w).truth(&s) == Truth::False));
    }

    #[test]
    fn relations_hold_for_some_pair_and_need_clear_distance() {
        let s = scene();
        let relation = |a, relation, b| Fact::Relation { a, relation, b }.truth(&s);
        let (red, house) = (a(Some(Colour::Red), Kind::Circle), a(None, Kind::House));
        let any_circle = a(None, Kind::Circle);
        assert_eq!(relation(red, Relation::LeftOf, house), Truth::True);
        assert_eq!(relation(red, Relation::RightOf, house), Truth::False);
        assert_eq!(relation(any_circle, Relation::RightOf, house), Truth::True);
        assert_eq!(relation(house, Relation::Above, any_circle), Truth::False);
        assert_eq!(
            relation(red, Relation::Above, a(Some(Colour::Blue), Kind::Circle)),
            Truth::Unclear
        );
    }

    #[test]
    fn an_object_near_the_middle_is_in_no_half_and_no_corner() {
        let s = scene();
        let place = |kind, place| Fact::Place { what: a(Some(Colour::Red), kind), place }.truth(&s);
        assert_eq!(place(Kind::House, Place::Half(Half::Left)), Truth::Unclear);
        assert_eq!(place(Kind::House, Place::Half(Half::Bottom)), Truth::True);
        assert_eq!(place(Kind::House, Place::Corner(Half::Bottom, Half::Left)), Truth::Unclear);
        assert_eq!(place(Kind::House, Place::Corner(Half::Top, Half::Left)), Truth::False);
        assert_eq!(place(Kind::Circle, Place::Corner(Half::Top, Half::Left)), Truth::True);
    }
}
