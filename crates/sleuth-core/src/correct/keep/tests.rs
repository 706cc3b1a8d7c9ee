use proptest::prelude::*;

use super::*;
use crate::correct::words::units;

const RULE: KeepRule = KeepRule { threshold: 0.5, sentences: SentenceRule::Period };

/// A token per piece that is not space; those of a word in `bad` get a low reward.
fn scored(text: &str, bad: &[&str]) -> Vec<TokenReward> {
    units(text)
        .into_iter()
        .filter(|unit| unit.kind != UnitKind::Space)
        .map(|unit| {
            let logit = if bad.contains(&unit.text) { -2.0 } else { 3.0 };
            TokenReward::from_logit(unit.span, logit)
        })
        .collect()
}

fn judge(before: &str, after: &str, bad: &[&str]) -> Result<f32, DropReason> {
    let (old, new) = (scored(before, bad), scored(after, bad));
    RULE.judge(Judged { text: before, tokens: &old }, Judged { text: after, tokens: &new })
}

const TEXT: &str = "A red heart is on the left. There are two objects.";

#[test]
fn a_repaired_word_is_kept() {
    assert!(judge(TEXT, "A white heart is on the left. There are two objects.", &["red"]).is_ok());
    let deleted = judge(TEXT, "A heart is on the left. There are two objects.", &["red"]);
    assert!(deleted.is_ok(), "what is not there may be left out");
}

#[test]
fn each_reason_has_its_repair() {
    let cases = [
        (TEXT, DropReason::NotFewerFlags),
        ("", DropReason::TextLost),
        (" \n", DropReason::TextLost),
        ("A white heart.", DropReason::TextLost),
        ("A cat sat on a mat and was happy there.", DropReason::TextLost),
        ("A red heart is on the left. There are two nice objects.", DropReason::NotFewerFlags),
        ("A bad heart is on the left. There are two objects.", DropReason::NotFewerFlags),
        ("A white heart is on the left. There are three objects.", DropReason::NewFlaggedSentence),
        (
            "A white heart is on the left. There are two objects. A bad one.",
            DropReason::NewFlaggedSentence,
        ),
    ];
    for (after, reason) in cases {
        // Two flagged words before, so that one left over is still fewer.
        let before = TEXT.replace("heart", "heart bad2");
        let (before, after) = match reason {
            DropReason::NewFlaggedSentence => (before.as_str(), after),
            _ => (TEXT, after),
        };
        let bad = ["red", "bad", "bad2", "three"];
        assert_eq!(judge(before, after, &bad), Err(reason), "{after}");
    }
    let essay = format!("{} {}", TEXT.replace("red", "white"), "And it goes on. ".repeat(20));
    assert_eq!(judge(TEXT, &essay, &["red"]), Err(DropReason::TextAdded));
}

fn judged<'a>(text: &'a str, tokens: &'a [TokenReward]) -> Judged<'a> {
    Judged { text, tokens }
}

#[test]
fn a_small_gain_is_no_gain() {
    let token =
        |at: u32, logit| TokenReward::from_logit(ByteSpan::try_new(at, at + 1).unwrap(), logit);
    let logits = |reward: f32| (reward / (1.0 - reward)).ln();
    let before = [token(0, logits(0.50)), token(2, logits(0.80))];
    for (reward, kept) in [(0.505, false), (0.51, false), (0.53, true)] {
        let after = [token(0, logits(reward)), token(2, logits(0.80))];
        let verdict = RULE.judge(judged("a b", &before), judged("c b", &after));
        assert_eq!(verdict.is_ok(), kept, "{reward}");
        if !kept {
            assert_eq!(verdict, Err(DropReason::SmallGain));
        }
    }
}

#[test]
fn a_sentence_rewritten_whole_comes_from_the_one_it_replaces() {
    // Everything flagged: nothing has to remain, and what comes in may still be doubtful.
    let bad = ["Cats", "sit", "here", "still"];
    assert!(judge("Cats sit here.", "Two hearts still.", &bad).is_ok());
    // A sentence that moves keeps its origin.
    let before = "Bad one two bad. Three four five six.";
    let after = "Three four five six. Bad one two.";
    let bad = ["Bad", "bad"];
    assert_eq!(judge(before, after, &bad), Err(DropReason::TextLost), "moving is losing");
}

#[test]
fn only_flagged_words_may_all_be_replaced() {
    let bad = ["red", "cat"];
    assert!(judge("red cat", "white heart", &bad).is_ok());
}

#[test]
fn exactly_four_fifths_may_remain() {
    let before = "bad a b c d e f g h i j";
    assert!(judge(before, "a b c d e f g h", &["bad"]).is_ok());
    assert_eq!(judge(before, "a b c d e f g", &["bad"]), Err(DropReason::TextLost));
}

proptest! {
    #[test]
    fn what_is_kept_keeps_every_promise(
        before in "([abcx]{1,2}[ ]|[abcx][.] ){1,14}",
        after in "([abcx]{1,2}[ ]|[abcx][.] ){0,24}",
    ) {
        let logit = |unit: &Unit<'_>| if unit.text.contains('x') { -1.0 } else { 2.0 };
        let scored = |text: &str| -> Vec<TokenReward> {
            let visible = units(text).into_iter().filter(|unit| unit.kind != UnitKind::Space);
            visible.map(|unit| TokenReward::from_logit(unit.span, logit(&unit))).collect()
        };
        let (old, new) = (scored(&before), scored(&after));
        let (was, is) =
            (Judged { text: &before, tokens: &old }, Judged { text: &after, tokens: &new });
        let verdict = RULE.judge(was, is);
        prop_assert_eq!(RULE.judge(was, was), Err(DropReason::NotFewerFlags));
        if let Ok(reward) = verdict {
            prop_assert!(RULE.admits(was, &after).is_ok());
            let rate = |judged: Judged<'_>| {
                RULE.flagged_tokens(judged.tokens) as f64 / words(judged.text).len().max(1) as f64
            };
            prop_assert!(rate(is) < rate(was));
            prop_assert!(RULE.flagged_tokens(&new) < RULE.flagged_tokens(&old));
            prop_assert!(reward - RULE.reward(&old) >= 0.0099);
            // An upper bound of what remains, by counting alone.
            let mut left: Vec<&str> = words(&after).iter().map(|w| &after[w.range()]).collect();
            let fine: Vec<&str> = words(&before)
                .iter()
                .map(|w| &before[w.range()])
                .filter(|word| !word.contains('x'))
                .collect();
            let remaining = fine
                .iter()
                .filter(|word| {
                    let at = left.iter().position(|other| other == *word);
                    at.map(|at| left.swap_remove(at)).is_some()
                })
                .count();
            prop_assert!(remaining * 5 >= fine.len() * 4);
            let flagged = |judged| RULE.said(judged).iter().filter(|s| s.is_flagged).count();
            prop_assert!(flagged(was) > 0);
        }
    }
}
