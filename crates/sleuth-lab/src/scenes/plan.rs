use super::dice::Dice;
use super::fact::{Description, Fact, Half, Relation, Truth};
use super::sentence::Sentence;
use super::{Colour, Kind, Object, Scene, Size};
use crate::data::Taxonomy;

/// Fewest words of a caption.
const LEAST_WORDS: usize = 12;
/// Most words of a caption.
const MOST_WORDS: usize = 35;
/// Most sentences of a caption.
const MOST_SENTENCES: usize = 4;
/// The taxonomies that scenes have edits for. No written words are drawn, so `text_ocr` is not
/// among them.
pub(crate) const TAXONOMIES: [Taxonomy; 7] = [
    Taxonomy::SpatialRelationship,
    Taxonomy::VisualAttribute,
    Taxonomy::AttributeBinding,
    Taxonomy::ObjectIdentification,
    Taxonomy::Counting,
    Taxonomy::SmallObject,
    Taxonomy::Counterfactual,
];
/// How often a caption is built around each of [`TAXONOMIES`]: more for those that simple scenes
/// have no sentence for, so that each gets about as many edits.
const FOCUS: [u32; 7] = [6, 6, 15, 6, 4, 9, 5];
/// How often each form of description is used: kind; colour and kind; size, colour and kind; size
/// and kind.
const FORMS: [u32; 4] = [2, 5, 3, 1];

/// Says true things about a scene.
#[derive(Debug)]
pub(crate) struct Teller<'a> {
    scene: &'a Scene,
    dice: &'a mut Dice,
    /// How often each object was chosen so far.
    mentions: [u8; 4],
}

/// A true caption; every sentence with the taxonomy that it can be edited in.
pub(crate) type Caption = Vec<(Sentence, Taxonomy)>;

// === impl Teller ===

impl<'a> Teller<'a> {
    pub(crate) fn new(scene: &'a Scene, dice: &'a mut Dice) -> Self {
        Self { scene, dice, mentions: [0; 4] }
    }

    /// 2 to 4 true sentences with different claims. The first entry is the one that the caption
    /// was built around; [`in_reading_order`] puts them as they are said.
    pub(crate) fn caption(&mut self) -> Caption {
        self.mentions = [0; 4];
        let target = 2 + self.dice.below(MOST_SENTENCES - 1);
        let mut told: Caption = Vec::with_capacity(MOST_SENTENCES);
        let mut words = 0;
        let mut order = TAXONOMIES;
        self.dice.shuffle(&mut order);
        let first = TAXONOMIES[self.dice.weighted(&FOCUS)];
        order.sort_by_key(|&t| t != first);
        // The taxonomies come round in turn; a simple scene has no sentence for some of them.
        for taxonomy in order.into_iter().cycle().take(8 * order.len()) {
            if told.len() >= target && words >= LEAST_WORDS || told.len() == MOST_SENTENCES {
                break;
            }
            let Some(sentence) = self.sentence(taxonomy) else { continue };
            let more = sentence.words().len();
            if words + more <= MOST_WORDS && told.iter().all(|(s, _)| differs(s, &sentence)) {
                words += more;
                told.push((sentence, taxonomy));
            }
        }
        told
    }

    /// A true sentence that can be edited in this taxonomy, if the scene has one.
    fn sentence(&mut self, taxonomy: Taxonomy) -> Option<Sentence> {
        let fact = match taxonomy {
            Taxonomy::SpatialRelationship => {
                if self.dice.chance(0.5) {
                    self.relation(&|_| true).or_else(|| self.place(&|_| true))
                } else {
                    self.place(&|_| true).or_else(|| self.relation(&|_| true))
                }
            }
            Taxonomy::VisualAttribute => self.attribute(),
            Taxonomy::AttributeBinding => self.colours(),
            Taxonomy::ObjectIdentification => match self.dice.below(4) {
                0 => self.place(&not_small),
                1 => self.relation(&not_small),
                _ => self.presence(&not_small),
            },
            Taxonomy::Counting => self.count(),
            Taxonomy::SmallObject => match self.dice.below(4) {
                0 => self.place(&is_small),
                1 => self.relation(&is_small),
                2 => self.colour(&is_small),
                _ => self.presence(&is_small),
            },
            Taxonomy::Counterfactual => {
                if self.dice.chance(0.5) {
                    self.presence(&|_| true)
                } else {
                    self.absence()
                }
            }
            Taxonomy::TextOcr => None,
        }?;
        Some(self.worded(fact))
    }

    /// A true answer to a question that can be answered falsely in this taxonomy.
    pub(crate) fn answer(&mut self, taxonomy: Taxonomy) -> Option<Sentence> {
        let fact = match taxonomy {
            Taxonomy::SpatialRelationship => self.place(&|_| true),
            Taxonomy::VisualAttribute => {
                if self.dice.chance(0.6) {
                    self.colour(&not_small)
                } else {
                    self.size()
                }
            }
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
                    self.presence(&|_| true)
                } else {
                    self.absence()
                }
            }
            Taxonomy::AttributeBinding | Taxonomy::TextOcr => None,
        }?;
        Some(self.answering(fact))
    }

    /// Words an answer: relations name the asked thing last and with "the".
    pub(crate) fn answering(&mut self, fact: Fact) -> Sentence {
        match fact {
            Fact::Relation { .. } => Sentence { fact, wording: 3 },
            Fact::Place { .. } => Sentence { fact, wording: 0 },
            _ => self.worded(fact),
        }
    }

    fn worded(&mut self, fact: Fact) -> Sentence {
        // Wordings in which the telling word comes after what it is about are the more common.
        let wording = match fact {
            Fact::Presence { .. } => self.dice.weighted(&[2, 6, 5, 1]),
            Fact::Count { what: None, .. } => self.dice.weighted(&[4, 3, 2]),
            Fact::Count { what: Some(_), .. } => [0, 2][self.dice.weighted(&[3, 7])],
            Fact::Relation { .. } => self.dice.weighted(&[3, 3, 5]),
            Fact::Colour { .. } | Fact::Place { .. } => self.dice.weighted(&[3, 1]),
            Fact::Size { .. } | Fact::Colours { .. } => 0,
        };
        Sentence { fact, wording: wording as u8 }
    }

    fn attribute(&mut self) -> Option<Fact> {
        let fact = match self.dice.below(10) {
            0..4 => self.colour(&not_small),
            4..7 => self.size(),
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
            let form = self.dice.weighted(&FORMS);
            let near = self.dice.pick(&self.scene.objects).filter(|_| self.dice.chance(0.6));
            let mut kind = Kind::ALL[self.dice.below(8)];
            let mut colour = Colour::ALL[self.dice.below(8)];
            match near {
                Some(o) if self.dice.chance(0.5) => kind = o.kind,
                Some(o) => colour = o.colour,
                None => {}
            }
            let size = Size::ALL[self.dice.below(2)];
            let what = shaped(form, size, colour, kind);
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
        let (object, what) = self.describe_with(&|d| d.size.is_none())?;
        Some(Fact::Size { what, size: object.size })
    }

    fn colours(&mut self) -> Option<Fact> {
        let scene = self.scene;
        let plain = |d: Description| d.colour.is_none();
        let mut pairs = Vec::with_capacity(12);
        for (i, a) in scene.objects.iter().enumerate() {
            for (j, b) in scene.objects.iter().enumerate() {
                let crossed =
                    scene.split.allows(a.kind, b.colour) && scene.split.allows(b.kind, a.colour);
                if i != j && a.colour != b.colour && crossed {
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

    fn count(&mut self) -> Option<Fact> {
        if self.dice.chance(0.55) {
            return Some(Fact::Count { what: None, number: self.scene.objects.len() as u8 });
        }
        let object = self.dice.pick(&self.scene.objects)?;
        let colour = Some(object.colour).filter(|_| self.dice.chance(0.5));
        let what = Description { size: None, colour, kind: object.kind };
        Some(Fact::Count { what: Some(what), number: what.count(self.scene) as u8 })
    }

    fn place(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<Fact> {
        let (object, what) = self.describe_with(ok)?;
        let halves: Vec<Half> =
            Half::ALL.into_iter().filter(|h| h.holds(&object) == Truth::True).collect();
        self.dice.pick(&halves).map(|half| Fact::Place { what, half })
    }

    /// A relation whose first thing `ok` takes. Mostly the first thing lies furthest out, so that
    /// the opposite is false whatever comes second.
    fn relation(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<Fact> {
        let objects = &self.scene.objects;
        let mut pairs = Vec::with_capacity(24);
        for relation in Relation::ALL {
            for (i, a) in objects.iter().enumerate() {
                let holds = |j: usize| relation.between(a, &objects[j]) == Truth::True;
                let outermost = (0..objects.len()).all(|j| j == i || holds(j));
                pairs.extend(
                    (0..objects.len())
                        .filter(|&j| j != i && holds(j))
                        .map(|j| (i, relation, j, outermost)),
                );
            }
        }
        self.dice.shuffle(&mut pairs);
        if self.dice.chance(0.7) {
            pairs.sort_by_key(|p| !p.3);
        }
        for (i, relation, j, _) in pairs {
            if let (Some(a), Some(b)) = (self.describe(i, ok), self.describe(j, &|_| true)) {
                return Some(Fact::Relation { a, relation, b });
            }
        }
        None
    }

    /// An object that was mentioned little so far, and a description that fits it alone.
    fn describe_with(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<(Object, Description)> {
        let mut order = [0, 1, 2, 3];
        let order = &mut order[..self.scene.objects.len()];
        self.dice.shuffle(order);
        if self.dice.chance(0.8) {
            order.sort_by_key(|&i: &usize| self.mentions[i]);
        }
        order.iter().find_map(|&i| self.describe(i, ok).map(|what| (self.scene.objects[i], what)))
    }

    fn describe_one(&mut self, ok: &dyn Fn(Description) -> bool) -> Option<Description> {
        self.describe_with(ok).map(|found| found.1)
    }

    /// A description that fits object `i` alone.
    fn describe(&mut self, i: usize, ok: &dyn Fn(Description) -> bool) -> Option<Description> {
        let o = self.scene.objects[i];
        let mut weights = FORMS;
        for (form, weight) in weights.iter_mut().enumerate() {
            let what = shaped(form, o.size, o.colour, o.kind);
            if !ok(what) || what.count(self.scene) != 1 {
                *weight = 0;
            }
        }
        if weights == [0; 4] {
            return None;
        }
        self.mentions[i] = self.mentions[i].saturating_add(1);
        Some(shaped(self.dice.weighted(&weights), o.size, o.colour, o.kind))
    }
}

/// The order in which a caption's sentences are said: the number of objects first, the rest in
/// random order.
pub(crate) fn in_reading_order(caption: &Caption, dice: &mut Dice) -> Vec<usize> {
    let mut order: Vec<usize> = (0..caption.len()).collect();
    dice.shuffle(&mut order);
    order.sort_by_key(|&i| !matches!(caption[i].0.fact, Fact::Count { what: None, .. }));
    order
}

/// The description of one of the [`FORMS`].
fn shaped(form: usize, size: Size, colour: Colour, kind: Kind) -> Description {
    Description {
        size: Some(size).filter(|_| form >= 2),
        colour: Some(colour).filter(|_| form == 1 || form == 2),
        kind,
    }
}

/// Whether two sentences claim different things.
fn differs(a: &Sentence, b: &Sentence) -> bool {
    match (a.fact, b.fact) {
        (Fact::Presence { what: a, .. }, Fact::Presence { what: b, .. }) => a != b,
        (Fact::Count { what: a, .. }, Fact::Count { what: b, .. }) => a != b,
        (a, b) => a != b,
    }
}

fn is_small(what: Description) -> bool {
    what.size == Some(Size::Small)
}

fn not_small(what: Description) -> bool {
    !is_small(what)
}
