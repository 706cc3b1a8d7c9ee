use super::dice::Dice;
use super::fact::{Counted, Description, Fact, Place, Truth};
use super::{Colour, Kind, Pattern, Scene, SignWord, Size};
use crate::data::Taxonomy;

/// How often an edit is taken whose false word can be told from the words before it, where there
/// is one. "A blue" is no clear error while some object is blue; the kind that follows decides, and
/// a causal model has not seen it yet.
const PREFER_TELLING: f32 = 0.8;

/// An edited claim.
struct Candidate {
    fact: Fact,
    /// Whether the first false word is false by the words before it alone.
    telling: bool,
}

/// Makes a minimal edit of a true claim, in one taxonomy, that the scene clearly refutes. `None`
/// where there is none, or none that `accept` takes.
pub(crate) fn falsify(
    fact: Fact,
    taxonomy: Taxonomy,
    scene: &Scene,
    dice: &mut Dice,
    accept: impl Fn(Fact) -> bool,
) -> Option<Fact> {
    let mut candidates = candidates(fact, taxonomy, scene);
    candidates.retain(|c| {
        c.fact.is_allowed(scene.split) && c.fact.truth(scene) == Truth::False && accept(c.fact)
    });
    if candidates.iter().any(|c| c.telling) && dice.chance(PREFER_TELLING) {
        candidates.retain(|c| c.telling);
    }
    if candidates.is_empty() {
        return None;
    }
    let chosen = dice.below(candidates.len());
    Some(candidates.swap_remove(chosen).fact)
}

fn candidates(fact: Fact, taxonomy: Taxonomy, scene: &Scene) -> Vec<Candidate> {
    match taxonomy {
        Taxonomy::SpatialRelationship => moved(fact),
        Taxonomy::VisualAttribute => restyled(fact, scene),
        Taxonomy::AttributeBinding => rebound(fact),
        Taxonomy::ObjectIdentification => {
            redescribed(fact, scene, |d| d.size != Some(Size::Small), rekinded)
        }
        Taxonomy::Counting => recounted(fact),
        Taxonomy::SmallObject => {
            let is_small = |d: Description| d.size == Some(Size::Small);
            let mut out = redescribed(fact, scene, is_small, rekinded);
            out.extend(redescribed(fact, scene, is_small, recoloured));
            if let Fact::Colour { what, colour } = fact
                && is_small(what)
            {
                out.extend(other_colours(colour).map(|c| sure(Fact::Colour { what, colour: c })));
            }
            out
        }
        Taxonomy::Counterfactual => match fact {
            Fact::Presence { what, present } => {
                vec![sure(Fact::Presence { what, present: !present })]
            }
            Fact::Sign(there) => vec![sure(Fact::Sign(!there))],
            _ => Vec::new(),
        },
        Taxonomy::TextOcr => match fact {
            Fact::Written(_) => SignWord::all().map(|word| sure(Fact::Written(word))).collect(),
            _ => Vec::new(),
        },
    }
}

fn moved(fact: Fact) -> Vec<Candidate> {
    match fact {
        Fact::Relation { a, relation, b } => {
            vec![sure(Fact::Relation { a, relation: relation.opposite(), b })]
        }
        Fact::Place { what, place: Place::Half(half) } => {
            vec![sure(Fact::Place { what, place: Place::Half(half.opposite()) })]
        }
        Fact::Place { what, place: Place::Corner(v, h) } => {
            [Place::Corner(v.opposite(), h), Place::Corner(v, h.opposite())]
                .map(|place| sure(Fact::Place { what, place }))
                .into()
        }
        _ => Vec::new(),
    }
}

/// Another colour or size, of what is not described as small.
fn restyled(fact: Fact, scene: &Scene) -> Vec<Candidate> {
    let mut out = redescribed(fact, scene, |d| d.size != Some(Size::Small), recoloured);
    out.extend(redescribed(fact, scene, |d| d.size == Some(Size::Large), resized));
    out.extend(redescribed(fact, scene, |_| true, repatterned));
    match fact {
        Fact::Colour { what, colour } if what.size != Some(Size::Small) => {
            out.extend(other_colours(colour).map(|c| sure(Fact::Colour { what, colour: c })));
        }
        Fact::Size { what, size } => out.push(sure(Fact::Size { what, size: size.other() })),
        Fact::Pattern { what, pattern } => out.extend(
            Pattern::ALL
                .into_iter()
                .filter(|&p| p != pattern)
                .map(|pattern| sure(Fact::Pattern { what, pattern })),
        ),
        Fact::Stance { what, turned } => out.push(sure(Fact::Stance { what, turned: !turned })),
        _ => {}
    }
    out
}

/// The colours of two things exchanged.
fn rebound(fact: Fact) -> Vec<Candidate> {
    match fact {
        Fact::Colours { first, second } if first.1 != second.1 => {
            vec![sure(Fact::Colours { first: (first.0, second.1), second: (second.0, first.1) })]
        }
        Fact::Relation { a, relation, b } => exchanged(a, b)
            .map(|(a, b)| sure(Fact::Relation { a, relation, b }))
            .into_iter()
            .collect(),
        Fact::Overview(all) => [(0, 1), (0, 2), (1, 2)]
            .into_iter()
            .filter_map(|(i, j)| {
                let mut new = all;
                (new[i], new[j]) = exchanged(all[i], all[j])?;
                Some(sure(Fact::Overview(new)))
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// Two descriptions with their colours exchanged, where both say one and they differ.
fn exchanged(a: Description, b: Description) -> Option<(Description, Description)> {
    let differ = a.colour.is_some() && b.colour.is_some() && a.colour != b.colour;
    let with = |d: Description, colour| Description { colour, ..d };
    differ.then(|| (with(a, b.colour), with(b, a.colour)))
}

fn recounted(fact: Fact) -> Vec<Candidate> {
    let Fact::Count { what, number } = fact else { return Vec::new() };
    // Numbers far off would be told from the text alone: of a kind there are seldom more than two.
    let (range, reach) = match what {
        Counted::Objects => (2..=6, 2),
        Counted::Coloured(_) | Counted::Described(_) => (1..=3, 1),
    };
    range
        .filter(|&n| n != number && n.abs_diff(number) <= reach)
        .map(|number| sure(Fact::Count { what, number }))
        .collect()
}

/// Edits of the descriptions that `takes` takes, such that no object fits the new description: the
/// edited word is what makes the claim false.
fn redescribed(
    fact: Fact,
    scene: &Scene,
    takes: impl Fn(Description) -> bool,
    edit: impl Fn(Description, &Scene) -> Vec<(Description, bool)>,
) -> Vec<Candidate> {
    let mut out = Vec::new();
    let mut push = |what: Description, put: &dyn Fn(Description) -> Fact| {
        if takes(what) {
            for (new, telling) in edit(what, scene) {
                if new.count(scene) == 0 {
                    out.push(Candidate { fact: put(new), telling });
                }
            }
        }
    };
    match fact {
        Fact::Presence { what, present: true } => {
            push(what, &|what| Fact::Presence { what, present: true });
        }
        Fact::Colour { what, colour } => push(what, &|what| Fact::Colour { what, colour }),
        Fact::Size { what, size } => push(what, &|what| Fact::Size { what, size }),
        Fact::Pattern { what, pattern } => push(what, &|what| Fact::Pattern { what, pattern }),
        Fact::Stance { what, turned } => push(what, &|what| Fact::Stance { what, turned }),
        Fact::Place { what, place } => push(what, &|what| Fact::Place { what, place }),
        Fact::Overview(all) => {
            for (i, what) in all.into_iter().enumerate() {
                push(what, &|what| {
                    let mut new = all;
                    new[i] = what;
                    Fact::Overview(new)
                });
            }
        }
        Fact::Relation { a, relation, b } => {
            push(a, &|a| Fact::Relation { a, relation, b });
            push(b, &|b| Fact::Relation { a, relation, b });
        }
        Fact::Presence { present: false, .. }
        | Fact::Count { .. }
        | Fact::Colours { .. }
        | Fact::Written(_)
        | Fact::Sign(_) => {}
    }
    out
}

fn recoloured(what: Description, scene: &Scene) -> Vec<(Description, bool)> {
    let Some(colour) = what.colour else { return Vec::new() };
    other_colours(colour)
        .map(|c| {
            let seen = scene
                .objects
                .iter()
                .any(|o| o.colour == c && what.size.is_none_or(|s| s == o.size));
            (Description { colour: Some(c), ..what }, !seen)
        })
        .collect()
}

fn rekinded(what: Description, _: &Scene) -> Vec<(Description, bool)> {
    Kind::ALL
        .into_iter()
        .filter(|&k| k != what.kind)
        .map(|kind| (Description { kind, ..what }, true))
        .collect()
}

fn repatterned(what: Description, scene: &Scene) -> Vec<(Description, bool)> {
    let Some(pattern) = what.pattern else { return Vec::new() };
    Pattern::ALL
        .into_iter()
        .filter(|&p| p != pattern && p != Pattern::Plain)
        .map(|p| {
            let seen = scene
                .objects
                .iter()
                .any(|o| o.pattern == p && what.colour.is_none_or(|c| c == o.colour));
            (Description { pattern: Some(p), ..what }, !seen)
        })
        .collect()
}

fn resized(what: Description, scene: &Scene) -> Vec<(Description, bool)> {
    let Some(size) = what.size.map(Size::other) else { return Vec::new() };
    let seen = scene.objects.iter().any(|o| o.size == size);
    // Where the scene has such a size, only a later word could tell: not worth a label.
    if seen { Vec::new() } else { vec![(Description { size: Some(size), ..what }, true)] }
}

fn other_colours(colour: Colour) -> impl Iterator<Item = Colour> {
    Colour::ALL.into_iter().filter(move |&c| c != colour)
}

fn sure(fact: Fact) -> Candidate {
    Candidate { fact, telling: true }
}
