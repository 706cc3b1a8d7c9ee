use std::ops::Range;

use similar::{Algorithm, capture_diff_slices};

use super::words::{Unit, UnitKind, units};
use crate::ByteSpan;

/// A part of a text that another one has otherwise; one of the two may be without bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was there, in bytes of the earlier text.
    pub before: ByteSpan,
    /// What stands there instead, in bytes of the later text.
    pub after: ByteSpan,
}

/// Two texts in pieces, and which pieces they share.
#[derive(Clone, Debug)]
pub(super) struct Alignment<'a> {
    pub(super) before: Vec<Unit<'a>>,
    pub(super) after: Vec<Unit<'a>>,
    /// Together all pieces of both, in order; equal and changed ones take turns.
    pub(super) blocks: Vec<Block>,
}

/// Pieces that both texts have, or that stand in each other's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) is_equal: bool,
    pub(super) before: Range<usize>,
    pub(super) after: Range<usize>,
}

/// Most pieces times pieces that are compared by Myers' algorithm: two texts of about 4,000 words each.
/// What differs by more is one change.
const MOST_COMPARED: usize = 1 << 26;

/// How `after` differs from `before`: in order, disjoint, by whole words (UAX 29). Putting each
/// `after` in the place of its `before` gives the later text to the byte. None where they are equal.
pub fn changes(before: &str, after: &str) -> Vec<Change> {
    Alignment::new(before, after).changes()
}

// === impl Alignment ===

impl<'a> Alignment<'a> {
    pub(super) fn new(before: &'a str, after: &'a str) -> Self {
        let (before, after) = (units(before), units(after));
        let blocks = blocks(&before, &after);
        Self { before, after, blocks }
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        let changed = self.blocks.iter().filter(|block| !block.is_equal);
        changed
            .map(|block| Change {
                before: place(&self.before, &block.before),
                after: place(&self.after, &block.after),
            })
            .collect()
    }
}

/// The bytes of some pieces; where there are none, the place between their neighbours.
fn place(units: &[Unit<'_>], range: &Range<usize>) -> ByteSpan {
    match units.get(range.clone()) {
        Some([first, .., last]) => first.span.to(last.span),
        Some([one]) => one.span,
        _ => {
            let before = range.start.checked_sub(1).and_then(|at| units.get(at));
            ByteSpan::empty(before.map_or(0, |unit| unit.span.end()))
        }
    }
}

fn blocks(before: &[Unit<'_>], after: &[Unit<'_>]) -> Vec<Block> {
    let (old, new): (Vec<&str>, Vec<&str>) =
        (before.iter().map(|u| u.text).collect(), after.iter().map(|u| u.text).collect());
    let shorter = old.len().min(new.len());
    let head = old.iter().zip(&new).take_while(|(a, b)| a == b).count();
    let ends = old.iter().rev().zip(new.iter().rev());
    let tail = ends.take(shorter - head).take_while(|(a, b)| a == b).count();
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let mut out = Vec::new();
    join(&mut out, true, 0..head, 0..head, before);
    let compared = (old_end - head).saturating_mul(new_end - head);
    if compared <= MOST_COMPARED {
        for op in capture_diff_slices(Algorithm::Myers, &old[head..old_end], &new[head..new_end]) {
            let (tag, a, b) = op.as_tag_tuple();
            let (a, b) = (a.start + head..a.end + head, b.start + head..b.end + head);
            join(&mut out, tag == similar::DiffTag::Equal, a, b, before);
        }
    } else {
        join(&mut out, false, head..old_end, head..new_end, before);
    }
    join(&mut out, true, old_end..old.len(), new_end..new.len(), before);
    out
}

/// Appends a block. What is changed on both sides of nothing but space is one change.
fn join(
    out: &mut Vec<Block>,
    is_equal: bool,
    before: Range<usize>,
    after: Range<usize>,
    units: &[Unit<'_>],
) {
    if before.is_empty() && after.is_empty() {
        return;
    }
    if let [.., changed, gap] = &mut out[..]
        && !is_equal
        && gap.is_equal
        && units[gap.before.clone()].iter().all(|unit| unit.kind == UnitKind::Space)
    {
        changed.before.end = before.end;
        changed.after.end = after.end;
        out.pop();
        return;
    }
    match out.last_mut() {
        Some(last) if last.is_equal == is_equal => {
            last.before.end = before.end;
            last.after.end = after.end;
        }
        _ => out.push(Block { is_equal, before, after }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown<'a>(before: &'a str, after: &'a str) -> Vec<(&'a str, &'a str)> {
        let changes = changes(before, after);
        changes.iter().map(|c| (&before[c.before.range()], &after[c.after.range()])).collect()
    }

    pub(super) fn applied(before: &str, after: &str) -> String {
        let (mut out, mut done) = (String::new(), 0);
        for change in changes(before, after) {
            out.push_str(&before[done..change.before.start() as usize]);
            out.push_str(&after[change.after.range()]);
            done = change.before.end() as usize;
        }
        out + &before[done..]
    }

    #[test]
    fn whole_words_change_and_neighbours_change_together() {
        assert_eq!(shown("A red heart.", "A white heart."), [("red", "white")]);
        assert_eq!(shown("A red heart.", "A white star."), [("red heart", "white star")]);
        assert_eq!(shown("A red heart.", "A heart."), [("red ", "")]);
        assert_eq!(shown("A heart.", "A small heart."), [("", "small ")]);
        assert_eq!(shown("一只红猫。", "一只白猫。"), [("红", "白")]);
        assert_eq!(shown("same", "same"), []);
        assert_eq!(shown("", "all"), [("", "all")]);
    }

    #[test]
    fn texts_too_long_to_compare_differ_as_wholes_between_what_they_share() {
        let long = |word: &str| format!("Same. {}end", format!("{word} x ").repeat(3000));
        let (before, after) = (long("a"), long("b"));
        let got = changes(&before, &after);
        assert_eq!(got.len(), 1);
        assert_eq!((got[0].before.start(), before.len() as u32 - got[0].before.end()), (6, 6));
        assert_eq!(applied(&before, &after), after);
    }

    proptest! {
        #[test]
        fn changes_applied_give_the_later_text(
            before in prop_oneof![".{0,40}", "([abc]{1,2}[ .]{1,2}){0,20}"],
            after in prop_oneof![".{0,40}", "([abc]{1,2}[ .]{1,2}){0,20}"],
        ) {
            prop_assert_eq!(&applied(&before, &after), &after);
            let changes = changes(&before, &after);
            prop_assert_eq!(changes.is_empty(), before == after);
            for pair in changes.windows(2) {
                prop_assert!(pair[0].before.end() < pair[1].before.start());
                prop_assert!(pair[0].after.end() < pair[1].after.start());
            }
        }
    }
}
