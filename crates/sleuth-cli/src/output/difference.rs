use std::fmt::Write as _;

use sleuth_core::Change;

use crate::items::slice;

/// The later of two texts with what it replaces: struck out in red before it, in green what came in.
///
/// Without `colour`, what went stands between `[-` and `-]`, what came between `{+` and `+}`.
pub(crate) fn difference(before: &str, after: &str, changes: &[Change], colour: bool) -> String {
    let (mut out, mut done) = (String::with_capacity(before.len() + after.len()), 0);
    let marks = if colour {
        [("\x1b[9;31m", "\x1b[0m"), ("\x1b[32m", "\x1b[0m")]
    } else {
        [("[-", "-]"), ("{+", "+}")]
    };
    for change in changes {
        let range = change.before.range();
        out.push_str(before.get(done..range.start).unwrap_or_default());
        let pieces = [slice(before, change.before), slice(after, change.after)];
        for (piece, (open, close)) in pieces.into_iter().zip(marks) {
            if !piece.is_empty() {
                let _ = write!(out, "{open}{piece}{close}");
            }
        }
        done = range.end;
    }
    out.push_str(before.get(done..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use sleuth_core::changes;

    use super::*;

    #[test]
    fn what_went_and_what_came_stand_side_by_side() {
        let shown =
            |before: &str, after: &str| difference(before, after, &changes(before, after), false);
        assert_eq!(shown("A red heart.", "A white heart."), "A [-red-]{+white+} heart.");
        assert_eq!(shown("A red heart.", "A heart."), "A [-red -]heart.");
        assert_eq!(shown("A heart.", "A heart."), "A heart.");
        let (before, after) = ("A red heart.", "A white heart.");
        let coloured = difference(before, after, &changes(before, after), true);
        assert!(coloured.contains("\x1b[32mwhite\x1b[0m"));
    }
}
