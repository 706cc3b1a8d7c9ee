use super::{Colour, Kind, Object, Scene, Size, Split};

/// Words that pick out objects: a kind, and what else is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Description {
    /// Said size.
    pub size: Option<Size>,
    /// Said colour.
    pub colour: Option<Colour>,
    /// Said kind.
    pub kind: Kind,
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
    /// Exactly `number` objects fit; all objects where nothing is described.
    Count {
        /// What is counted.
        what: Option<Description>,
        /// 1 to 4.
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
    /// What fits lies in this half of the image.
    Place {
        /// What.
        what: Description,
        /// Where.
        half: Half,
    },
}

/// Whether a scene bears a claim out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    /// Whether an object is as described.
    pub fn fits(self, object: &Object) -> bool {
        self.kind == object.kind
            && self.colour.is_none_or(|c| c == object.colour)
            && self.size.is_none_or(|s| s == object.size)
    }

    /// How many objects of a scene are as described.
    pub fn count(self, scene: &Scene) -> usize {
        scene.objects.iter().filter(|o| self.fits(o)).count()
    }

    fn is_allowed(self, split: Split) -> bool {
        self.colour.is_none_or(|c| split.allows(self.kind, c))
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

// === impl Fact ===

impl Fact {
    /// Whether the scene bears it out.
    ///
    /// A claim about something that no object fits is false; where several fit, they must agree.
    pub fn truth(self, scene: &Scene) -> Truth {
        match self {
            Self::Presence { what, present } => is(what.count(scene) > 0).agrees(present),
            Self::Count { what, number } => {
                let found = what.map_or(scene.objects.len(), |w| w.count(scene));
                is(found == usize::from(number))
            }
            Self::Colour { what, colour } => each(scene, what, |o| is(o.colour == colour)),
            Self::Size { what, size } => each(scene, what, |o| is(o.size == size)),
            Self::Colours { first, second } => {
                let one = Self::Colour { what: first.0, colour: first.1 }.truth(scene);
                one.and(Self::Colour { what: second.0, colour: second.1 }.truth(scene))
            }
            Self::Relation { a, relation, b } => related(scene, a, relation, b),
            Self::Place { what, half } => each(scene, what, |o| half.holds(o)),
        }
    }

    /// Whether it names only (kind, colour) pairs that a split may name.
    pub(crate) fn is_allowed(self, split: Split) -> bool {
        match self {
            Self::Presence { what, .. } | Self::Size { what, .. } | Self::Place { what, .. } => {
                what.is_allowed(split)
            }
            Self::Count { what, .. } => what.is_none_or(|w| w.is_allowed(split)),
            Self::Colour { what, colour } => split.allows(what.kind, colour),
            Self::Colours { first, second } => {
                split.allows(first.0.kind, first.1) && split.allows(second.0.kind, second.1)
            }
            Self::Relation { a, b, .. } => a.is_allowed(split) && b.is_allowed(split),
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
    fn agrees(self, claimed: bool) -> Self {
        is((self == Self::True) == claimed)
    }

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
    use super::super::Background;
    use super::*;

    fn object(kind: Kind, colour: Colour, size: Size, x: f32, y: f32) -> Object {
        Object { kind, colour, size, x, y, extent: 0.2, rgb: colour.rgb() }
    }

    /// A small red circle left of a large blue circle, and a large red star below, in the middle.
    fn scene() -> Scene {
        let background =
            Background { from: [0; 3], to: [0; 3], direction: (1.0, 0.0), noise: 0, noise_seed: 0 };
        let objects = vec![
            object(Kind::Circle, Colour::Red, Size::Small, 0.2, 0.2),
            object(Kind::Circle, Colour::Blue, Size::Large, 0.8, 0.2),
            object(Kind::Star, Colour::Red, Size::Large, 0.5, 0.7),
        ];
        Scene { split: Split::Test, objects, background }
    }

    fn a(colour: Option<Colour>, kind: Kind) -> Description {
        Description { size: None, colour, kind }
    }

    #[test]
    fn presence_and_counts_are_exact() {
        let s = scene();
        let red_circle = a(Some(Colour::Red), Kind::Circle);
        let presence = |what, present| Fact::Presence { what, present }.truth(&s);
        assert_eq!(presence(red_circle, true), Truth::True);
        assert_eq!(presence(red_circle, false), Truth::False);
        assert_eq!(presence(a(Some(Colour::Blue), Kind::Star), false), Truth::True);
        let count = |what, number| Fact::Count { what, number }.truth(&s);
        assert_eq!(count(None, 3), Truth::True);
        assert_eq!(count(Some(a(None, Kind::Circle)), 2), Truth::True);
        assert_eq!(count(Some(red_circle), 2), Truth::False);
    }

    #[test]
    fn a_claim_on_which_fitting_objects_differ_is_unclear() {
        let s = scene();
        let colour = |what, colour| Fact::Colour { what, colour }.truth(&s);
        assert_eq!(colour(a(None, Kind::Circle), Colour::Red), Truth::Unclear);
        assert_eq!(colour(a(None, Kind::Circle), Colour::Green), Truth::False);
        assert_eq!(colour(a(None, Kind::Star), Colour::Red), Truth::True);
        assert_eq!(colour(a(None, Kind::Heart), Colour::Red), Truth::False);
    }

    #[test]
    fn relations_hold_for_some_pair_and_need_clear_distance() {
        let s = scene();
        let relation = |a, relation, b| Fact::Relation { a, relation, b }.truth(&s);
        let (red, star) = (a(Some(Colour::Red), Kind::Circle), a(None, Kind::Star));
        let any_circle = a(None, Kind::Circle);
        assert_eq!(relation(red, Relation::LeftOf, star), Truth::True);
        assert_eq!(relation(red, Relation::RightOf, star), Truth::False);
        assert_eq!(relation(any_circle, Relation::RightOf, star), Truth::True);
        assert_eq!(relation(star, Relation::Above, any_circle), Truth::False);
        assert_eq!(
            relation(red, Relation::Above, a(Some(Colour::Blue), Kind::Circle)),
            Truth::Unclear
        );
    }

    #[test]
    fn an_object_near_the_middle_is_in_no_half() {
        let s = scene();
        let place = |half| Fact::Place { what: a(None, Kind::Star), half }.truth(&s);
        assert_eq!(place(Half::Left), Truth::Unclear);
        assert_eq!(place(Half::Bottom), Truth::True);
        assert_eq!(place(Half::Top), Truth::False);
    }
}
