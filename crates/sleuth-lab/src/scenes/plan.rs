use super::dice::Dice;
use super::fact::{Counted, Description, Fact, Half, Place, Relation, Truth};
use super::sentence::Sentence;
use super::{Colour, Kind, Object, Pattern, Scene, Size};
use crate::data::Taxonomy;

/// Fewest words of a caption, where the scene has as much to say.
const LEAST_WORDS: usize = 27;
/// Most words of a caption.
const MOST_WORDS: usize = 50;
/// Most sentences of a caption.
const MOST_SENTENCES: usize = 5;
/// The taxonomies in the order in which responses take turns.
pub(crate) const TAXONOMIES: [Taxonomy; 8] = [
    Taxonomy::SpatialRelationship,
    Taxonomy::VisualAttribute,
    Taxonomy::AttributeBinding,
    Taxonomy::ObjectIdentification,
    Taxonomy::Counting,
    Taxonomy::SmallObject,
    Taxonomy::TextOcr,
    Taxonomy::Counterfactual,
];
/// How often each form of description is used: kind; colour and kind; size, colour and kind; size
/// and kind; colour, pattern and kind; pattern and kind.
const FORMS: [u32; 6] = [2, 5, 3, 1, 3, 1];
/// Of a thing that is not there, a pattern is said so often.
const ABSENT_FORMS: [u32; 6] = [4, 10, 6, 2, 2, 1];

/// Says true things about a scene.
#[derive(Debug)]
pub(crate) struct Teller<'a> {
    scene: &'a Scene,
    dice: &'a mut Dice,
    /// How often each object was chosen so far.
    mentions: [u8; 6],
}

/// True sentences. The first is the one that the caption is built around: the others speak of
/// other things, so that no edit of it contradicts them.
pub(crate) type Caption = Vec<Sentence>;

// === impl Teller ===

impl<'a> Teller<'a> {
    pub(crate) fn new(scene: &'a Scene, dice: &'a mut Dice) -> Self {
        Self { scene, dice, mentions: [0; 6] }
    }

    /// 2 to 5 true sentences around one that can be edited in `focus`; `None` where this draw finds
    /// no such sentence. [`in_reading_order`] puts them as they are said.
    pub(crate) fn caption(&mut self, focus: Taxonomy) -> Option<Caption> {
        self.mentions = [0; 6];
        let first = self.sentence(focus)?;
        let target = 2 + self.dice.weighted(&[3, 4, 3, 2]);
        let mut words = first.words().len();
        let mut told = vec![first];
        let mut order = TAXONOMIES;
        self.dice.shuffle(&mut order);
        for taxonomy in order.into_iter().cycle().take(6 * order.len()) {
            let enough = told.len() >= target && words >= LEAST_WORDS;
            if enough || told.len() == MOST_SENTENCES {
                break;
            }
            let Some(sentence) = self.sentence(taxonomy) else { continue };
            let more = sentence.words().len();
            if words + more <= MOST_WORDS
                && !touch(first.fact, sentence.fact)
                && told.iter().all(|s| differ(s.fact, sentence.fact))
            {
                words += more;
                told.push(sentence);
            }
        }
        (told.len() >= 2).then_some(told)
    }

    /// A true sentence that can be edited in this taxonomy, if the scene has one.
    fn sentence(&mut self, taxonomy: Taxonomy) -> Option<Sentence> {
        let fact = match taxonomy {
            Taxonomy::SpatialRelationship => {
                if self.dice.chance(0.6) {
                    self.relation(&any).or_else(|| self.place(&any))
                } else {
                    self.place(&any).or_else(|| self.relation(&any))
                }
            }
            Taxonomy::VisualAttribute => self.attribute(),
            Taxonomy::AttributeBinding => self.binding(),
            Taxonomy::ObjectIdentification => match self.dice.below(5) {
                0 => self.place(&not_small),
                1 => self.relation(&not_small),
                2 => self.overview(),
                _ => self.presence(&not_small),
            },
            Taxonomy::Counting => self.count(),
            Taxonomy::SmallObject => match self.dice.below(5) {
                0 => self.place(&is_small),
                1 => self.relation(&is_small),
                2 => self.colour(&is_small),
                _ => self.presence(&is_small),
            },
            Taxonomy::Counterfactual => match self.dice.below(12) {
                0 => Some(Fact::Sign(self.scene.sign.is_some())),
                1..7 => self.presence(&any),
                _ => self.absence(),
            },
            Taxonomy::TextOcr => self.scene.sign.map(|sign| Fact::Written(sign.word)),
        }?;
        Some(self.worded(fact))
    }

    /// A true answer to a question that can be answered falsely in this taxonomy.
    pub(crate) fn answer(&mut self, taxonomy: Taxonomy) -> Option<Sentence> {
        let fact = match taxonomy {
            Taxonomy::SpatialRelationship => self.place(&any),
            Taxonomy::VisualAttribute => match self.dice.below(4) {
                0 => self.size(),
                1 => self.pattern(),
                _ => self.colour(&not_small),
            },
            Taxonomy::AttributeBinding => self.colours(),
            Taxonomy::ObjectIdentification => self.relation(&not_small),
            Taxonomy::Counting => self.count(),
            Taxonomy::SmallObject => {
                if self.dice.chance(0.5) {
                    self.colour(&is_small)
                } else {
                    self.relation(&is_small)
                }
            }
            Taxonomy::Counterfactual => {
                if self.dice.chance(0.5) {
                    self.presence(&any)
                } else {
                    self.absence()
                }
            }
            Taxonomy::TextOcr => {
                Some(self.scene.sign.map_or(Fact::Sign(false), |sign| Fact::Written(sign.word)))
            }
        }?;
        Some(self.answering(fact))
    }

    /// Words an answer: relations name the asked thing last and with "the".
    pub(crate) fn answering(&mut self, fact: Fact) -> Sentence {
        match fact {
            Fact::Relation { .. } => Sentence { fact, wording: 3 },
            Fact::Place { .. } | Fact::Sign(_) => Sentence { fact, wording: 0 },
            Fact::Written(_) => Sentence { fact, wording: 1 },
            _ => self.worded(fact),
        }
    }

    pub(crate) fn worded(&mut self, fact: Fact) -> Sentence {
        // Wordings in which the telling word comes after what it is about are the more common.
        let wording = match fact {
            Fact::Presence { .. } => self.dice.weighted(&[2, 6, 5, 1]),
            Fact::Count { what: Counted::Objects, .. } => self.dice.weighted(&[4, 3, 2]),
            Fact::Count { .. } => [0, 2][self.dice.weighted(&[3, 7])],
            Fact::Relation { .. } => self.dice.weighted(&[3, 3, 5]),
            Fact::Colour { .. } | Fact::Place { .. } => self.dice.weighted(&[3, 1]),
            Fact::Overview(_) => self.dice.weighted(&[3, 2, 2]),
            Fact::Written(_) => self.dice.weighted(&[3, 3, 2]),
            Fact::Sign(_) => self.dice.weighted(&[1, 1]),
            Fact::Size { .. }
            | Fact::Pattern { .. }
            | Fact::Stance { .. }
            | Fact::Colours { .. } => 0,
        };
        Sentence { fact, wording: wording as u8 }
    }

    fn attribute(&mut self) -> Option<Fact> {
        let fact = match self.dice.below(20) {
            0..6 => self.colour(&not_small),
            6..10 => self.size(),
            10..13 => self.pattern(),
            13..15 => self.stance(),
            15..17 => self.overview(),
            _ => self.presence(&|d| not_small(d) && d.colour.is_some()),
        };
        fact.or_else(|| self.size())
    }

    fn presence(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<Fact> {
        self.describe_one(ok).map(|what| Fact::Presence { what, present: true })
    }

    /// A thing that is not there; half the time its colour or its kind is.
    fn absence(&mut self) -> Option<Fact> {
        for _ in 0..8 {
            let form = self.dice.weighted(&ABSENT_FORMS);
            let near = self.dice.pick(&self.scene.objects).filter(|_| self.dice.chance(0.6));
            let mut kind = Kind::ALL[self.dice.below(Kind::ALL.len())];
            let mut colour = Colour::ALL[self.dice.below(Colour::ALL.len())];
            match near {
                Some(o) if self.dice.chance(0.5) => kind = o.kind,
                Some(o) => colour = o.colour,
                None => {}
            }
            let size = Size::ALL[self.dice.below(2)];
            let pattern = Pattern::ALL[1 + self.dice.below(3)];
            let what = shaped(form, size, colour, pattern, kind);
            let fact = Fact::Presence { what, present: false };
            if what.count(self.scene) == 0 && fact.is_allowed(self.scene.split) {
                return Some(fact);
            }
        }
        None
    }

    fn colour(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<Fact> {
        let (object, what) = self.describe_with(&|d| d.colour.is_none() && ok(d))?;
        Some(Fact::Colour { what, colour: object.colour })
    }

    fn size(&mut self) -> Option<Fact> {
        let (object, what) = self.describe_with(&|d| d.size.is_none() && d.pattern.is_none())?;
        Some(Fact::Size { what, size: object.size })
    }

    /// The pattern of a large thing; patterned ones are preferred, so that each is said as often.
    fn pattern(&mut self) -> Option<Fact> {
        let plain_too = self.dice.chance(0.2);
        let wanted =
            move |o: &Object| o.size == Size::Large && (plain_too || o.pattern != Pattern::Plain);
        let bare = |d: Description| d.pattern.is_none() && d.size.is_none();
        let (object, what) = self.describe_where(&wanted, &bare)?;
        Some(Fact::Pattern { what, pattern: object.pattern })
    }

    /// How something stands; upright is seldom said, so that it is not the likelier word.
    fn stance(&mut self) -> Option<Fact> {
        let upright_too = self.dice.chance(0.12);
        let wanted =
            move |o: &Object| o.size == Size::Large && o.kind.has_up() && (upright_too || o.turned);
        let (object, what) = self.describe_where(&wanted, &|d| d.size.is_none())?;
        Some(Fact::Stance { what, turned: object.turned })
    }

    fn binding(&mut self) -> Option<Fact> {
        match self.dice.below(4) {
            0 => self.relation(&|d| d.colour.is_some()).or_else(|| self.colours()),
            1 => self.overview().or_else(|| self.colours()),
            _ => self.colours(),
        }
    }

    fn overview(&mut self) -> Option<Fact> {
        let mut all = [None; 3];
        for i in 0..all.len() {
            let told = all;
            let new =
                |d: Description| told.iter().flatten().all(|t: &Description| t.kind != d.kind);
            all[i] = Some(self.describe_one(&new)?);
        }
        let [Some(a), Some(b), Some(c)] = all else { return None };
        Some(Fact::Overview([a, b, c]))
    }

    fn colours(&mut self) -> Option<Fact> {
        let scene = self.scene;
        let plain = |d: Description| d.colour.is_none();
        let mut pairs = Vec::with_capacity(30);
        for (i, a) in scene.objects.iter().enumerate() {
            for (j, b) in scene.objects.iter().enumerate() {
                let crossed =
                    scene.split.allows(a.kind, b.colour) && scene.split.allows(b.kind, a.colour);
                if i != j && a.colour != b.colour && a.kind != b.kind && crossed {
                    pairs.push((i, j));
                }
            }
        }
        self.dice.shuffle(&mut pairs);
        for (i, j) in pairs {
            if let (Some(a), Some(b)) = (self.describe(i, &plain), self.describe(j, &plain)) {
                let (one, two) = (scene.objects[i], scene.objects[j]);
                return Some(Fact::Colours { first: (a, one.colour), second: (b, two.colour) });
            }
        }
        None
    }

    /// Of kinds there is mostly one, so kinds of which there are several are preferred.
    fn count(&mut self) -> Option<Fact> {
        let what = match self.dice.below(10) {
            0..4 => Counted::Objects,
            4..6 => Counted::Coloured(self.dice.pick(&self.scene.objects)?.colour),
            _ => {
                let scene = self.scene;
                let several =
                    |o: &Object| scene.objects.iter().filter(|p| p.kind == o.kind).count() > 1;
                let many: Vec<Object> = scene.objects.iter().copied().filter(several).collect();
                let from =
                    if many.is_empty() && self.dice.chance(0.6) { return None } else { many };
                let from = if from.is_empty() || self.dice.chance(0.1) {
                    scene.objects.clone()
                } else {
                    from
                };
                let object = self.dice.pick(&from)?;
                let colour = Some(object.colour).filter(|_| self.dice.chance(0.25));
                Counted::Described(Description { colour, ..Description::of(object.kind) })
            }
        };
        Some(Fact::Count { what, number: what.count(self.scene) as u8 })
    }

    fn place(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<Fact> {
        let (object, what) = self.describe_with(ok)?;
        let places: Vec<Place> = Place::all().filter(|p| p.holds(&object) == Truth::True).collect();
        let opposite = |half: Half| half.opposite().holds(&object) == Truth::False;
        let clear = |p: &Place| match *p {
            Place::Half(half) => opposite(half),
            Place::Corner(v, h) => opposite(v) && opposite(h),
        };
        let places: Vec<Place> = places.into_iter().filter(clear).collect();
        self.dice.pick(&places).map(|place| Fact::Place { what, place })
    }

    /// A relation whose first thing `ok` takes. Mostly the first thing lies furthest out, so that
    /// the opposite is false whatever comes second.
    fn relation(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<Fact> {
        let objects = &self.scene.objects;
        let mut pairs = Vec::with_capacity(60);
        for relation in Relation::ALL {
            for (i, a) in objects.iter().enumerate() {
                let holds = |j: usize| relation.between(a, &objects[j]) == Truth::True;
                let outermost = (0..objects.len()).all(|j| j == i || holds(j));
                pairs.extend(
                    (0..objects.len())
                        .filter(|&j| j != i && objects[j].kind != a.kind && holds(j))
                        .map(|j| (i, relation, j, outermost)),
                );
            }
        }
        self.dice.shuffle(&mut pairs);
        if self.dice.chance(0.7) {
            pairs.sort_by_key(|p| !p.3);
        }
        for (i, relation, j, _) in pairs {
            if let (Some(a), Some(b)) = (self.describe(i, ok), self.describe(j, &any)) {
                return Some(Fact::Relation { a, relation, b });
            }
        }
        None
    }

    /// An object that was mentioned little so far, and a description that fits it alone.
    fn describe_with(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<(Object, Description)> {
        self.describe_where(&|_| true, ok)
    }

    fn describe_where(
        &mut self,
        wanted: &dyn Fn(&Object) -> bool,
        ok: &dyn Fn(Description) -> bool,
    ) -> Option<(Object, Description)> {
        let mut order = [0, 1, 2, 3, 4, 5];
        let order = &mut order[..self.scene.objects.len()];
        self.dice.shuffle(order);
        if self.dice.chance(0.8) {
            order.sort_by_key(|&i: &usize| self.mentions[i]);
        }
        order
            .iter()
            .filter(|&&i| wanted(&self.scene.objects[i]))
            .find_map(|&i| self.describe(i, ok).map(|what| (self.scene.objects[i], what)))
    }

    fn describe_one(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<Description> {
        self.describe_with(ok).map(|found| found.1)
    }

    /// A description that fits object `i` alone.
    fn describe(&mut self, i: usize, ok: &dyn Fn(Description) -> bool) -> Option<Description> {
        let o = self.scene.objects[i];
        let mut weights = FORMS;
        for (form, weight) in weights.iter_mut().enumerate() {
            let what = shaped(form, o.size, o.colour, o.pattern, o.kind);
            let unsaid = form >= 4 && o.pattern == Pattern::Plain;
            if unsaid || !ok(what) || what.count(self.scene) != 1 {
                *weight = 0;
            }
        }
        if weights == [0; 6] {
            return None;
        }
        self.mentions[i] = self.mentions[i].saturating_add(1);
        Some(shaped(self.dice.weighted(&weights), o.size, o.colour, o.pattern, o.kind))
    }
}

/// The order in which a caption's sentences are said: what there is in all first, then the rest in
/// random order.
pub(crate) fn in_reading_order(caption: &[Sentence], dice: &mut Dice) -> Vec<usize> {
    let mut order: Vec<usize> = (0..caption.len()).collect();
    dice.shuffle(&mut order);
    order.sort_by_key(|&i| match caption[i].fact {
        Fact::Count { what: Counted::Objects, .. } => 0,
        Fact::Overview(_) => 1,
        _ => 2,
    });
    order
}

/// The description of one of the [`FORMS`].
fn shaped(form: usize, size: Size, colour: Colour, pattern: Pattern, kind: Kind) -> Description {
    Description {
        size: Some(size).filter(|_| matches!(form, 2 | 3)),
        colour: Some(colour).filter(|_| matches!(form, 1 | 2 | 4)),
        pattern: Some(pattern).filter(|_| form >= 4),
        kind,
    }
}

/// Whether two claims speak of the same things, so that an edit of one could contradict the other.
pub(crate) fn touch(a: Fact, b: Fact) -> bool {
    let kinds = |f: Fact| f.descriptions().map(|d| d.kind);
    let about_sign = |f: Fact| matches!(f, Fact::Written(_) | Fact::Sign(_));
    let coloured = |f: Fact| match f {
        Fact::Count { what: Counted::Coloured(colour), .. } => Some(colour),
        _ => None,
    };
    let says = |f: Fact, colour: Colour| {
        f.descriptions().any(|d| d.colour == Some(colour))
            || coloured(f).is_some()
            || matches!(f, Fact::Colour { .. } | Fact::Colours { .. })
    };
    kinds(a).any(|k| kinds(b).any(|l| k == l))
        || about_sign(a) && about_sign(b)
        || coloured(a).is_some_and(|c| says(b, c))
        || coloured(b).is_some_and(|c| says(a, c))
}

/// Whether numbers of all objects leave room for every kind that is said to be there.
pub(crate) fn leaves_room(facts: &[Fact]) -> bool {
    let mut kinds: Vec<Kind> = facts
        .iter()
        .filter(|f| !matches!(f, Fact::Presence { present: false, .. }))
        .flat_map(|f| f.descriptions().map(|d| d.kind))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    facts.iter().all(|f| match f {
        Fact::Count { what: Counted::Objects, number } => usize::from(*number) >= kinds.len(),
        _ => true,
    })
}

/// Whether two sentences claim different things.
fn differ(a: Fact, b: Fact) -> bool {
    match (a, b) {
        (Fact::Presence { what: a, .. }, Fact::Presence { what: b, .. }) => a.kind != b.kind,
        (Fact::Count { what: a, .. }, Fact::Count { what: b, .. }) => a != b,
        (Fact::Overview(_), Fact::Overview(_))
        | (Fact::Written(_) | Fact::Sign(_), Fact::Written(_) | Fact::Sign(_)) => false,
        (a, b) => a != b,
    }
}

const fn any(_: Description) -> bool {
    true
}

fn is_small(what: Description) -> bool {
    what.size == Some(Size::Small)
}

fn not_small(what: Description) -> bool {
    !is_small(what)
}
