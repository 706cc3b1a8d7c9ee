use sleuth_core::{Attempt, Corrected, DropReason, Options, ScoreRequest, SentenceRule};

use super::*;
use crate::fake::{ScriptedCorrector, WordScorer};

mod bad_input;
mod batches;

const NOW: Duration = Duration::ZERO;

struct Bench {
    scorer: WordScorer,
    corrections: Corrections,
}

/// What a correction did.
struct Run {
    correction: Correction,
    events: Vec<CorrectEvent>,
}

fn bench(scorer: WordScorer, corrector: &Arc<ScriptedCorrector>) -> Bench {
    let builtin = Some(Arc::clone(corrector) as Arc<dyn Corrector>);
    let correctors = Correctors { builtin, endpoint: None };
    let corrections =
        Corrections::new(Arc::new(scorer.clone()), correctors, Duration::from_mins(1));
    Bench { scorer, corrections }
}

fn request(response: &str) -> CorrectRequest<Bytes> {
    let item = ScoreRequest::new(Bytes::from_static(b"an image"), response);
    CorrectRequest { max_rounds: 4, max_candidates: 3, ..CorrectRequest::new(item) }
}

impl Bench {
    async fn run(&self, request: CorrectRequest<Bytes>) -> Run {
        self.run_until(request, std::future::pending()).await
    }

    async fn run_until(
        &self,
        request: CorrectRequest<Bytes>,
        cancelled: impl Future<Output = ()> + Send,
    ) -> Run {
        let (sender, mut events) = mpsc::channel(1);
        let reading = tokio::spawn(async move {
            let mut all = Vec::new();
            while let Some(event) = events.recv().await {
                all.push(event);
            }
            all
        });
        let caller = Caller::default();
        let correction = self.corrections.correct(&caller, request, cancelled, &sender).await;
        drop(sender);
        Run { correction, events: reading.await.unwrap() }
    }
}

impl Run {
    fn corrected(&self) -> &Corrected {
        self.correction.outcome.as_ref().unwrap()
    }

    fn failure(&self) -> &Failure {
        self.correction.outcome.as_ref().unwrap_err()
    }

    fn stopped(&self) -> Reason {
        self.corrected().stopped.as_ref().expect("a reason").reason
    }

    fn dropped(&self) -> Vec<Option<DropReason>> {
        self.correction.attempts.iter().map(|attempt| attempt.dropped).collect()
    }

    /// Names of the events, in order.
    fn shown(&self) -> String {
        let name = |event: &CorrectEvent| match event {
            CorrectEvent::Scored { .. } => "scored".to_owned(),
            CorrectEvent::Proposed(p) => format!("proposed {}.{}", p.round, p.candidate),
            CorrectEvent::Rescored(r) => format!("rescored {}.{}", r.round, r.candidate),
        };
        self.events.iter().map(name).collect::<Vec<_>>().join(", ")
    }
}

const TEXT: &str = "A bad heart is here. There are two objects.";
const GOOD: &str = "A white heart is here. There are two objects.";

#[tokio::test]
async fn what_is_fine_costs_one_scoring_and_no_proposal() {
    let corrector = ScriptedCorrector::new(NOW, [Ok(vec!["never asked"])]);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let run = bench.run(request(GOOD)).await;
    let corrected = run.corrected();
    assert_eq!((corrected.response.as_str(), corrected.kept), (GOOD, 0));
    assert!(corrected.changes.is_empty() && corrected.stopped.is_none());
    assert_eq!((run.correction.rounds, run.shown().as_str()), (0, "scored"));
    assert_eq!(bench.scorer.scored(), [[GOOD]]);
    assert!(corrector.asked().is_empty());
}

#[tokio::test]
async fn the_best_repair_that_the_rule_admits_is_kept() {
    let worse = "A meh heart is here. There are two objects.";
    let corrector = ScriptedCorrector::new(
        NOW,
        [Ok(vec![worse, GOOD, "A bad star is here. There are two objects."])],
    );
    let bench = bench(WordScorer::new(NOW), &corrector);
    let run = bench.run(request(TEXT)).await;
    let corrected = run.corrected();
    assert_eq!((corrected.response.as_str(), corrected.kept), (GOOD, 1));
    let change = corrected.changes[0];
    assert_eq!((&TEXT[change.before.range()], &GOOD[change.after.range()]), ("bad", "white"));
    assert!(corrected.scored.reward > corrected.reward_before + 0.01);
    let expected = [Some(DropReason::OtherBetter), None, Some(DropReason::NotFewerFlags)];
    assert_eq!(run.dropped(), expected);
    assert_eq!(
        run.shown(),
        "scored, proposed 1.0, proposed 1.1, proposed 1.2, rescored 1.0, rescored 1.1, rescored 1.2"
    );
    assert_eq!(bench.scorer.scored().len(), 2, "a round is scored at once");
    assert_eq!(run.correction.rounds, 1, "nothing is flagged any more");
    let asked = &corrector.asked()[0];
    let flagged: Vec<&str> = asked.flagged.iter().map(|s| &TEXT[s.range()]).collect();
    assert_eq!((flagged, asked.candidates, asked.sentences.len()), (vec!["bad"], 3, 2));
}

#[tokio::test]
async fn rounds_go_on_from_what_was_kept_and_end_at_their_bound() {
    let steps = [
        "A bad1 heart is bad2 and bad3 here bad4.",
        "A red heart is bad2 and bad3 here bad4.",
        "A red heart is large and bad3 here bad4.",
        "A red heart is large and round here bad4.",
    ];
    let answers = [steps[1], steps[2], steps[3]].map(|text| Ok(vec![text]));
    let corrector = ScriptedCorrector::new(NOW, answers);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let run = bench.run(CorrectRequest { max_rounds: 3, ..request(steps[0]) }).await;
    assert_eq!((run.corrected().response.as_str(), run.corrected().kept), (steps[3], 3));
    assert_eq!((run.correction.rounds, corrector.asked().len()), (3, 3));
    let asked: Vec<_> = corrector.asked().into_iter().map(|a| (a.response, a.seed)).collect();
    let expected: Vec<_> =
        [0, 16, 32].iter().zip(steps).map(|(&seed, text)| (text.to_owned(), seed)).collect();
    assert_eq!(asked, expected);
    assert_eq!(run.corrected().changes.len(), 3);
}

#[tokio::test]
async fn a_round_that_brings_nothing_new_is_the_last() {
    let same = "A bad1 heart is here. There are two objects.";
    let corrector = ScriptedCorrector::new(NOW, [Ok(vec![same, same]), Ok(vec![same])]);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let run = bench.run(request(TEXT)).await;
    assert_eq!((run.corrected().response.as_str(), run.correction.rounds), (TEXT, 2));
    assert_eq!(run.dropped(), [Some(DropReason::NotFewerFlags)]);
    assert_eq!(bench.scorer.scored().len(), 2, "a repeated repair is not scored again");
}

#[tokio::test]
async fn a_failing_corrector_ends_the_item_with_what_was_kept() {
    let failure = Failure::new(ErrorClass::ModelFailure, Reason::CORRECTOR_FAILED, "scripted");
    let half = "A white heart is bad here.";
    let corrector = ScriptedCorrector::new(NOW, [Ok(vec![half]), Err(failure)]);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let run = bench.run(request("A bad heart is bad here.")).await;
    assert_eq!((run.corrected().response.as_str(), run.corrected().kept), (half, 1));
    assert_eq!((run.stopped(), run.correction.rounds), (Reason::CORRECTOR_FAILED, 2));
    let panicking = ScriptedCorrector::new(NOW, [Ok(vec!["corrector panic"])]);
    let run = self::bench(WordScorer::new(NOW), &panicking).run(request(TEXT)).await;
    assert_eq!((run.corrected().response.as_str(), run.stopped()), (TEXT, Reason::WORKER_FAILED));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_ends_the_item_wherever_it_is_with_what_was_kept() {
    let second = Duration::from_secs(1);
    let half = "A white heart is bad here.";
    let whole = "A white heart is large here.";
    // Scoring takes a second, a proposal two: 1 scored, 3 proposed, 4 rescored, 6, 7.
    for (tenths, response) in
        [(5, None), (20, Some(0)), (35, Some(0)), (55, Some(1)), (65, Some(1)), (75, Some(2))]
    {
        let corrector = ScriptedCorrector::new(second * 2, [Ok(vec![half]), Ok(vec![whole])]);
        let bench = bench(WordScorer::new(second), &corrector);
        let mut asked = request("A bad heart is bad here.");
        asked.item.context.timeout = Some(second * tenths / 10);
        let begun = Instant::now();
        let run = bench.run(asked).await;
        assert!(begun.elapsed() <= second * tenths / 10 + Duration::from_millis(2), "{tenths}");
        match response {
            None => assert_eq!(run.failure().class, ErrorClass::Deadline),
            Some(kept) => {
                let texts = ["A bad heart is bad here.", half, whole];
                let corrected = run.corrected();
                assert_eq!(
                    (corrected.response.as_str(), corrected.kept),
                    (texts[kept], kept as u32)
                );
                let late = corrected.stopped.as_ref().map(|failure| failure.class);
                assert_eq!(late, (kept < 2).then_some(ErrorClass::Deadline), "{tenths}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_ends_the_item_wherever_it_is_without_a_response() {
    let second = Duration::from_secs(1);
    for tenths in [0, 5, 20, 35, 55, 65] {
        let corrector = ScriptedCorrector::new(
            second * 2,
            [Ok(vec!["A white heart is bad here."]), Ok(vec!["A white heart is large here."])],
        );
        let bench = bench(WordScorer::new(second), &corrector);
        let cancelled = tokio::time::sleep(second * tenths / 10);
        let begun = Instant::now();
        let run = bench.run_until(request("A bad heart is bad here."), cancelled).await;
        assert!(begun.elapsed() <= second * tenths / 10 + Duration::from_millis(2));
        assert_eq!(run.failure().class, ErrorClass::Cancelled, "{tenths}");
        assert_eq!(run.failure().reason, Reason::CALLER_CANCELLED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_caller_who_reads_no_events_is_waited_for_to_the_deadline() {
    let corrector = ScriptedCorrector::new(NOW, [Ok(vec![GOOD])]);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let (sender, events) = mpsc::channel(1);
    let caller = Caller::default();
    let never = std::future::pending();
    let mut asked = request(TEXT);
    asked.item.context.timeout = Some(Duration::from_secs(3));
    let correction = bench.corrections.correct(&caller, asked, never, &sender).await;
    let corrected = correction.outcome.unwrap();
    assert_eq!(corrected.response, TEXT);
    assert_eq!(corrected.stopped.unwrap().class, ErrorClass::Deadline);
    drop(events);
    // One who is gone is not waited for.
    let never = std::future::pending();
    let correction = bench.corrections.correct(&caller, request(GOOD), never, &sender).await;
    assert!(correction.outcome.unwrap().stopped.is_none());
}

#[tokio::test]
async fn guidance_gives_the_prompt_and_leaves_the_response() {
    let corrector = ScriptedCorrector::new(NOW, []);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let asked = CorrectRequest { corrector: CorrectorKind::Guidance, ..request(TEXT) };
    let run = bench.run(asked).await;
    assert_eq!(run.shown(), "scored, proposed 1.0");
    let CorrectEvent::Proposed(Proposed { proposal: Proposal::Guidance(prompt), .. }) =
        &run.events[1]
    else {
        panic!("a prompt");
    };
    assert!(prompt.contains("Doubtful words: \"bad\"") && prompt.contains("What is there?"));
    assert_eq!((run.corrected().response.as_str(), run.correction.rounds), (TEXT, 1));
    assert_eq!(bench.scorer.scored().len(), 1);
}

#[tokio::test]
async fn below_token_guidance_a_corrector_is_told_no_words() {
    for level in [GuidanceLevel::Response, GuidanceLevel::Naive] {
        let corrector = ScriptedCorrector::new(NOW, [Ok(vec![GOOD])]);
        let bench = bench(WordScorer::new(NOW), &corrector);
        let run = bench.run(CorrectRequest { guidance: level, ..request(TEXT) }).await;
        assert_eq!(run.corrected().response, GOOD, "the rule is the same");
        assert!(corrector.asked()[0].flagged.is_empty());
    }
}

#[tokio::test]
async fn the_rule_sees_the_options_of_the_item() {
    let answers = ["One. Two bad.", "One two. Two bad."];
    for (sentences, threshold) in
        [(SentenceRule::Unicode, Some(0.99)), (SentenceRule::Period, None)]
    {
        let corrector = ScriptedCorrector::new(NOW, answers.map(|text| Ok(vec![text])));
        let bench = bench(WordScorer::new(NOW), &corrector);
        let mut asked = request("One bad. Two bad.");
        asked.item.context.options = Options { sentences, threshold, ..Options::default() };
        let run = bench.run(asked).await;
        // At 0.99 every token is flagged, before and after.
        assert_eq!(run.corrected().kept, u32::from(threshold.is_none()));
    }
}

#[tokio::test]
async fn an_attempt_tells_what_was_measured() {
    let corrector = ScriptedCorrector::new(NOW, [Ok(vec![GOOD])]);
    let bench = bench(WordScorer::new(NOW), &corrector);
    let run = bench.run(request(TEXT)).await;
    let reward = Some(run.corrected().scored.reward);
    let expected =
        Attempt { round: 1, candidate: 0, reward, flagged_tokens: Some(0), dropped: None };
    assert_eq!(run.correction.attempts, [expected]);
}
