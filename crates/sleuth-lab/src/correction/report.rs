use std::fmt::Write as _;

use serde::Serialize;
use sleuth_core::{Correction, GuidanceLevel};

use super::judge::false_statements;
use super::{Fate, Judgement};

/// What corrections at one level of guidance came to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Responses.
    pub responses: u64,
    /// Responses with a flagged word, for which repairs were asked.
    pub tried: u64,
    /// Responses that ended early or failed.
    pub stopped: u64,
    /// Repairs proposed.
    pub proposed: u64,
    /// Responses with a kept repair that put words in or exchanged them.
    pub repaired: Outcomes,
    /// Responses whose kept repairs only left words out.
    pub deleted: Outcomes,
    /// False statements of all responses, before.
    pub false_before: u64,
    /// False statements of all responses, after.
    pub false_after: u64,
    /// True statements of all responses, before.
    pub true_before: u64,
    /// True statements of all responses, after.
    pub true_after: u64,
}

/// How repaired responses compare with what came, by the number of false statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Outcomes {
    /// Fewer.
    pub win: u64,
    /// As many.
    pub tie: u64,
    /// More.
    pub loss: u64,
}

/// Tallies of some levels, side by side.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CorrectionReport {
    /// In the order in which they were measured.
    pub levels: Vec<(&'static str, Tally)>,
}

// === impl Tally ===

impl Tally {
    /// Counts one response.
    pub fn add(&mut self, correction: &Correction, judgement: &Judgement) {
        let stopped = correction.outcome.as_ref().map_or(true, |c| c.stopped.is_some());
        self.responses += 1;
        self.tried += u64::from(correction.rounds > 0);
        self.stopped += u64::from(stopped);
        self.proposed += correction.attempts.len() as u64;
        let outcomes = if judgement.is_deletion { &mut self.deleted } else { &mut self.repaired };
        match judgement.fate {
            Fate::Unchanged => {}
            Fate::Win => outcomes.win += 1,
            Fate::Tie => outcomes.tie += 1,
            Fate::Loss => outcomes.loss += 1,
        }
        self.false_before += u64::from(false_statements(judgement.before));
        self.false_after += u64::from(false_statements(judgement.after));
        self.true_before += u64::from(judgement.before.right);
        self.true_after += u64::from(judgement.after.right);
    }
}

// === impl CorrectionReport ===

impl CorrectionReport {
    /// Adds a level.
    pub fn add(&mut self, level: GuidanceLevel, tally: Tally) {
        self.levels.push((level.name(), tally));
    }

    /// The figures as a table of Markdown.
    pub fn markdown(&self) -> String {
        let mut out = String::from(
            "| guidance | responses | tried | repaired: win / tie / loss | only deleted: win / tie / loss | \
             false statements | true statements | stopped |\n|---|---:|---:|---:|---:|---:|---:|---:|\n",
        );
        for (level, tally) in &self.levels {
            let Outcomes { win, tie, loss } = tally.repaired;
            let deleted = tally.deleted;
            let _ = writeln!(
                out,
                "| {level} | {} | {} | {win} / {tie} / {loss} | {} / {} / {} | {} -> {} | {} -> {} | {} |",
                tally.responses,
                tally.tried,
                deleted.win,
                deleted.tie,
                deleted.loss,
                tally.false_before,
                tally.false_after,
                tally.true_before,
                tally.true_after,
                tally.stopped,
            );
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use sleuth_core::{ErrorClass, Failure, Reason};

    use super::*;
    use crate::scenes::Statements;

    #[test]
    fn deletions_and_repairs_are_counted_apart() {
        let statements = |right, wrong, unreadable| Statements {
            right,
            wrong,
            unreadable,
            ..Statements::default()
        };
        let judgement = |fate, is_deletion| Judgement {
            before: statements(2, 1, 0),
            after: statements(2, 0, 1),
            fate,
            is_deletion,
        };
        let failure = Failure::new(ErrorClass::Deadline, Reason::DEADLINE_PASSED, "late");
        let correction = Correction { rounds: 1, ..Correction::failed(failure) };
        let mut tally = Tally::default();
        for (fate, is_deletion) in [
            (Fate::Win, false),
            (Fate::Win, true),
            (Fate::Tie, false),
            (Fate::Loss, true),
            (Fate::Unchanged, false),
        ] {
            tally.add(&correction, &judgement(fate, is_deletion));
        }
        assert_eq!(tally.repaired, Outcomes { win: 1, tie: 1, loss: 0 });
        assert_eq!(tally.deleted, Outcomes { win: 1, tie: 0, loss: 1 });
        assert_eq!((tally.responses, tally.tried, tally.stopped), (5, 5, 5));
        assert_eq!((tally.false_before, tally.false_after), (5, 5), "nonsense is false");
        let mut report = CorrectionReport::default();
        report.add(GuidanceLevel::Naive, tally);
        let row = "| naive | 5 | 5 | 1 / 1 / 0 | 1 / 0 / 1 | 5 -> 5 | 10 -> 10 | 5 |";
        assert!(report.markdown().lines().any(|line| line == row), "{}", report.markdown());
    }
}
