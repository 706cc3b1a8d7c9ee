//! What may be wrong with an item, and with what a corrector gives.

use super::*;

/// A correction of `text` with these answers of the corrector.
async fn run<const N: usize>(text: &str, answers: [Vec<&str>; N]) -> Run {
    let corrector = ScriptedCorrector::new(NOW, answers.map(Ok));
    bench(WordScorer::new(NOW), &corrector).run(request(text)).await
}

#[tokio::test]
async fn nothing_to_score_is_a_failure_and_never_a_response() {
    let run = run("", [vec!["A cat."]]).await;
    assert_eq!(run.failure().reason, Reason::RESPONSE_EMPTY);
    assert!(run.events.is_empty() && run.correction.attempts.is_empty());
}

#[tokio::test]
async fn only_flagged_words_may_all_be_replaced() {
    let run = run("bad badly", [vec!["two hearts"]]).await;
    assert_eq!((run.corrected().response.as_str(), run.corrected().kept), ("two hearts", 1));
}

#[tokio::test]
async fn no_words_at_all_are_left_alone() {
    for text in ["...", " ", "\n\n", "👍"] {
        let run = run(text, [vec!["A cat."]]).await;
        assert_eq!(
            (run.corrected().response.as_str(), run.corrected().kept),
            (text, 0),
            "{text:?}"
        );
    }
}

#[tokio::test]
async fn four_thousand_tokens_are_repaired_like_four() {
    let long = "A red star is here. A bad heart too. ".repeat(400);
    let repaired = long.replace("bad", "white");
    let run = run(&long, [vec![repaired.as_str()]]).await;
    assert!(run.corrected().scored.tokens.len() > 4000);
    assert_eq!(run.corrected().response, repaired);
    assert_eq!(run.corrected().changes.len(), 400);
}

#[tokio::test]
async fn one_word_of_thousands_gains_too_little_to_be_kept() {
    let long = format!("{}bad heart.", "A red star is here. ".repeat(800));
    let repaired = long.replace("bad", "white");
    let run = run(&long, [vec![repaired.as_str()]]).await;
    assert!(run.corrected().response == long && run.corrected().kept == 0);
    assert_eq!(run.dropped(), [Some(DropReason::SmallGain)]);
}

#[tokio::test]
async fn other_scripts_and_texts_without_spaces_are_repaired() {
    // The fake's tokens are runs without spaces, so that all of such a run is flagged.
    for (text, repaired) in [
        ("Кот bad здесь.", "Кот белый здесь."),
        ("قطة bad هنا.", "قطة حمراء هنا."),
        ("一只bad猫。 一只狗。", "一只白猫。 一只狗。"),
        ("แมวbadอยู่ที่นี่", "แมวขาวอยู่ที่นี่"),
        ("onebadword", "onegoodword"),
    ] {
        let run = run(text, [vec![repaired]]).await;
        assert_eq!(run.corrected().response, repaired);
    }
}

#[tokio::test]
async fn the_same_text_is_no_repair_and_costs_no_scoring() {
    let corrector = ScriptedCorrector::new(NOW, [Ok(vec![TEXT]), Ok(vec![TEXT])]);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let run = bench.run(request(TEXT)).await;
    assert_eq!((run.corrected().response.as_str(), run.corrected().kept), (TEXT, 0));
    assert_eq!(run.dropped(), [Some(DropReason::NotFewerFlags)]);
    assert_eq!(bench.scorer.scored().len(), 1);
}

#[tokio::test]
async fn nothing_is_no_repair() {
    for answer in [vec![], vec![""], vec!["  \n"], vec!["."]] {
        let run = run(TEXT, [answer]).await;
        assert_eq!((run.corrected().response.as_str(), run.corrected().kept), (TEXT, 0));
        assert!(run.dropped().iter().all(|dropped| *dropped == Some(DropReason::TextLost)));
        assert!(run.corrected().stopped.is_none());
    }
}

#[tokio::test]
async fn an_essay_is_no_repair_and_is_not_scored() {
    let essay = format!("{GOOD} {}", "Moreover it is a fine picture of many things. ".repeat(2000));
    let corrector = ScriptedCorrector::new(NOW, [Ok(vec![&essay, GOOD])]);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let run = bench.run(request(TEXT)).await;
    assert_eq!(run.corrected().response, GOOD, "the other candidate is not held up by it");
    assert_eq!(run.dropped(), [Some(DropReason::TextAdded), None]);
    assert_eq!(bench.scorer.scored(), [vec![TEXT], vec![GOOD]]);
}

#[tokio::test]
async fn rounds_do_not_wear_a_text_away() {
    let words: Vec<String> = (0..20).map(|n| format!("w{n}")).collect();
    let text = format!("bad1 bad2 {}", words.join(" "));
    let first = format!("good bad2 {}", words[..17].join(" "));
    let second = format!("good good {}", words[..14].join(" "));
    let run = run(&text, [vec![&first], vec![&second]]).await;
    assert_eq!(run.corrected().response, first, "14 of 17 would do, 14 of 20 do not");
    assert_eq!(run.dropped(), [None, Some(DropReason::TextLost)]);
}

#[tokio::test]
async fn what_cannot_be_scored_costs_the_others_nothing() {
    let corrected = run("bad", [vec!["overload", "good"]]).await;
    assert_eq!((corrected.corrected().response.as_str(), corrected.corrected().kept), ("good", 1));
    assert_eq!(corrected.dropped(), [Some(DropReason::Unscored), None]);
    let stopped = run("bad", [vec!["overload"], vec!["never asked"]]).await;
    assert_eq!(stopped.corrected().response, "bad");
    assert_eq!(stopped.stopped(), Reason::QUEUE_FULL);
}

#[tokio::test]
async fn what_is_not_offered_or_out_of_bounds_is_refused_before_any_work() {
    let corrector = ScriptedCorrector::new(NOW, []);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let invalid = ErrorClass::InvalidRequest;
    let endpoint = CorrectRequest { corrector: CorrectorKind::Endpoint, ..request(TEXT) };
    let cases = [
        (endpoint, ErrorClass::Unsupported, "corrector"),
        (CorrectRequest { max_rounds: 0, ..request(TEXT) }, invalid, "max_rounds"),
        (CorrectRequest { max_rounds: 9, ..request(TEXT) }, invalid, "max_rounds"),
        (CorrectRequest { max_candidates: 17, ..request(TEXT) }, invalid, "max_candidates"),
    ];
    for (request, class, field) in cases {
        let run = bench.run(request).await;
        assert_eq!((run.failure().class, run.failure().field), (class, Some(field)));
    }
    assert!(bench.scorer.scored().is_empty());
}
