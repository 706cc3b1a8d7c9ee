use serde::Serialize;

use crate::scenes::Statements;

/// What captions said, judged by the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct CaptionTally {
    /// Captions.
    pub captions: u32,
    /// Those with a statement that is false, or none that can be read.
    pub hallucinated: u32,
    /// Statements that can be judged.
    pub statements: u32,
    /// Those of them that are false.
    pub wrong: u32,
    /// Sentences that claim nothing readable.
    pub unreadable: u32,
}

// === impl CaptionTally ===

impl CaptionTally {
    /// Takes a caption in.
    pub fn add(&mut self, said: Statements) {
        let Statements { right, wrong, unclear: _, unreadable } = said;
        self.captions += 1;
        self.hallucinated += u32::from(wrong > 0 || right + wrong == 0);
        self.statements += right + wrong;
        self.wrong += wrong;
        self.unreadable += unreadable;
    }

    /// The share of statements that are false, 0 to 1; 0 without any.
    pub fn statement_rate(&self) -> f64 {
        share(self.wrong, self.statements)
    }

    /// The share of captions with something false, 0 to 1; 0 without any.
    pub fn caption_rate(&self) -> f64 {
        share(self.hallucinated, self.captions)
    }
}

fn share(part: u32, whole: u32) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / f64::from(whole) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_false_counts_by_statement_and_by_caption() {
        let mut tally = CaptionTally::default();
        tally.add(Statements { right: 3, wrong: 1, unclear: 1, unreadable: 0 });
        tally.add(Statements { right: 4, wrong: 0, unclear: 0, unreadable: 1 });
        tally.add(Statements { right: 0, wrong: 0, unclear: 0, unreadable: 2 });
        assert_eq!((tally.captions, tally.hallucinated), (3, 2));
        assert_eq!((tally.statements, tally.wrong, tally.unreadable), (8, 1, 3));
        assert!((tally.statement_rate() - 0.125).abs() < 1e-12);
        assert!((CaptionTally::default().caption_rate()).abs() < 1e-12);
    }
}
