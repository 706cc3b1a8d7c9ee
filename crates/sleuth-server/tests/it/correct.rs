//! The `Correct` stream over an in-memory connection.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use sleuth_core::{CorrectRequest, CorrectorKind};
use sleuth_proto::v1;
use sleuth_proto::v1::correct_request::Kind;
use sleuth_proto::v1::correct_response::Kind as ReplyKind;
use sleuth_proto::v1::{ErrorClass, NoticeKind};
use sleuth_server::{Drained, ServerSettings};
use sleuth_service::fake::{ScriptedCorrector, WordScorer};
use sleuth_service::{
    BoxFuture, Caller, Corrections, Corrector, Correctors, Corrects, ImageStore, OpenItem, Scorer,
    Tokenized,
};
use sleuth_wire::{CorrectReply, Finished, correct_reply, encode_correct_item};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::harness::{Harness, invalid, request, settings, start_with, valid, wire_key};

/// [`WordScorer`] with corrections over itself.
struct Correcting {
    words: WordScorer,
    corrections: Arc<Corrections>,
}

impl Scorer for Correcting {
    fn score<'a>(
        &'a self,
        caller: &'a Caller,
        request: sleuth_core::ScoreRequest<bytes::Bytes>,
    ) -> BoxFuture<'a, Result<sleuth_core::Scored, sleuth_core::Failure>> {
        self.words.score(caller, request)
    }

    fn open<'a>(
        &'a self,
        caller: &'a Caller,
        context: sleuth_core::Context<bytes::Bytes>,
    ) -> BoxFuture<'a, Result<OpenItem, sleuth_core::Failure>> {
        self.words.open(caller, context)
    }

    fn images(&self) -> &Arc<ImageStore> {
        self.words.images()
    }

    fn tokenize(&self, text: String) -> BoxFuture<'_, Result<Tokenized, sleuth_core::Failure>> {
        self.words.tokenize(text)
    }

    fn model_of<'a>(
        &'a self,
        adapter: &'a str,
    ) -> BoxFuture<'a, Result<Arc<sleuth_core::ModelCard>, sleuth_core::Failure>> {
        self.words.model_of(adapter)
    }

    fn corrects(&self) -> Option<Arc<dyn Corrects>> {
        Some(Arc::clone(&self.corrections) as _)
    }
}

/// Takes the word `bad` out of everything, after so long.
struct Whitener(Duration);

impl Corrector for Whitener {
    fn propose<'a>(
        &'a self,
        request: &'a sleuth_service::RepairRequest,
    ) -> BoxFuture<'a, Result<Vec<sleuth_service::Repair>, sleuth_core::Failure>> {
        Box::pin(async move {
            if !self.0.is_zero() {
                tokio::time::sleep(self.0).await;
            }
            let response = request.response.replace("bad", "white");
            Ok(vec![sleuth_service::Repair { response, changed: request.flagged.clone() }])
        })
    }
}

async fn serve(settings: ServerSettings, corrector: Arc<dyn Corrector>) -> (Harness, WordScorer) {
    let words = WordScorer::new(Duration::ZERO);
    let correctors = Correctors { builtin: Some(corrector), endpoint: None };
    let corrections = Corrections::new(Arc::new(words.clone()), correctors, Duration::from_mins(1));
    let scorer = Correcting { words: words.clone(), corrections: Arc::new(corrections) };
    (start_with(settings, Arc::new(scorer)).await, words)
}

/// A caller's two halves of a `Correct` stream.
struct Side {
    requests: Option<mpsc::Sender<v1::CorrectRequest>>,
    replies: Streaming<v1::CorrectResponse>,
}

impl Side {
    async fn open(harness: &Harness) -> Self {
        let (requests, queue) = mpsc::channel(64);
        let replies = harness.service().correct(ReceiverStream::new(queue)).await.unwrap();
        Self { requests: Some(requests), replies: replies.into_inner() }
    }

    async fn send(&self, kind: Kind) {
        let request = v1::CorrectRequest { kind: Some(kind) };
        self.requests.as_ref().unwrap().send(request).await.unwrap();
    }

    async fn correct(&self, id: &str, response: &str) {
        self.send(Kind::Item(item(id, response))).await;
    }

    async fn reply(&mut self) -> Option<ReplyKind> {
        self.replies.message().await.unwrap().map(|reply| reply.kind.expect("a kind"))
    }

    /// The next end, whatever comes before it.
    async fn end(&mut self) -> v1::Final {
        loop {
            if let ReplyKind::Final(end) = self.reply().await.expect("the stream goes on") {
                return end;
            }
        }
    }

    /// All that is left, by the item it is of.
    async fn rest(&mut self) -> BTreeMap<String, Vec<ReplyKind>> {
        self.requests = None;
        let mut out: BTreeMap<String, Vec<ReplyKind>> = BTreeMap::new();
        while let Some(kind) = self.reply().await {
            out.entry(id(&kind)).or_default().push(kind);
        }
        out
    }
}

fn item(id: &str, response: &str) -> v1::CorrectItem {
    encode_correct_item(Some(wire_key(id)), CorrectRequest::new(request(response)))
}

fn id(kind: &ReplyKind) -> String {
    let key = match kind {
        ReplyKind::Scored(scored) => &scored.key,
        ReplyKind::Proposal(proposal) => &proposal.key,
        ReplyKind::Rescored(rescored) => &rescored.key,
        ReplyKind::Final(end) => &end.verdict.as_ref().expect("a verdict").key,
        ReplyKind::Notice(_) => return "notice".to_owned(),
    };
    key.as_ref().map_or_else(String::new, |key| key.item_id.clone())
}

fn finished(end: v1::Final) -> Finished {
    match correct_reply(ReplyKind::Final(end)).unwrap().unwrap() {
        CorrectReply::Final(finished) => *finished,
        other => panic!("not an end: {other:?}"),
    }
}

fn timed(mut item: v1::CorrectItem, seconds: i64) -> Kind {
    let context = item.item.as_mut().unwrap().context.as_mut().unwrap();
    context.timeout = Some(prost_types::Duration { seconds, nanos: 0 });
    Kind::Item(item)
}

#[tokio::test]
async fn items_come_back_out_of_order_each_with_its_events_and_one_end() {
    let (harness, words) = serve(settings(), Arc::new(Whitener(Duration::ZERO))).await;
    let mut side = Side::open(&harness).await;
    for n in 0..20 {
        let response = if n % 2 == 0 { "A bad heart." } else { "A white heart." };
        side.correct(&n.to_string(), response).await;
    }
    let rest = side.rest().await;
    assert_eq!(rest.len(), 20);
    for (id, replies) in rest {
        let repaired = id.parse::<u32>().unwrap() % 2 == 0;
        assert_eq!(replies.len(), if repaired { 4 } else { 2 }, "{id}");
        let mut replies = replies.into_iter();
        let Some(ReplyKind::Scored(scored)) = replies.next() else { panic!("scored first") };
        // Three words, two spaces and a full stop.
        assert_eq!(scored.scores.unwrap().start.len(), 6);
        assert_eq!(scored.words.len(), usize::from(repaired));
        if repaired {
            let Some(ReplyKind::Proposal(proposal)) = replies.next() else { panic!("a proposal") };
            assert_eq!((proposal.round, &proposal.response[..]), (1, &b"A white heart."[..]));
            assert_eq!(proposal.replaced, [v1::Span { start: 2, end: 5 }]);
            let Some(ReplyKind::Rescored(rescored)) = replies.next() else { panic!("rescored") };
            assert!(rescored.kept && rescored.valid.unwrap().flagged.is_empty());
        }
        let Some(ReplyKind::Final(end)) = replies.next() else { panic!("the end") };
        assert_eq!((end.kept, end.rounds), (u32::from(repaired), u32::from(repaired)));
        let used = finished(end).outcome.unwrap();
        assert_eq!(used.response, "A white heart.");
        assert_eq!(used.changes.len(), usize::from(repaired));
        assert_eq!(used.reward > used.reward_before, repaired);
    }
    assert_eq!(words.scored().len(), 30, "what is fine costs one scoring");
}

#[tokio::test]
async fn what_is_wrong_with_an_item_names_its_field_and_ends_no_stream() {
    let (harness, words) = serve(settings(), Arc::new(Whitener(Duration::ZERO))).await;
    let mut side = Side::open(&harness).await;
    let broken = |edit: &dyn Fn(&mut v1::CorrectItem)| {
        let mut item = item("a", "A bad heart.");
        edit(&mut item);
        Kind::Item(item)
    };
    let inner = |item: &mut v1::CorrectItem, edit: &dyn Fn(&mut v1::Item)| {
        edit(item.item.as_mut().unwrap());
    };
    let cases = [
        (broken(&|i| i.corrector = 7), "field_invalid", "item.corrector"),
        (broken(&|i| i.max_rounds = Some(9)), "field_invalid", "item.max_rounds"),
        (broken(&|i| i.max_candidates = Some(0)), "field_invalid", "item.max_candidates"),
        (broken(&|i| i.guidance = 7), "field_invalid", "item.guidance"),
        (
            broken(&|i| inner(i, &|i| i.response = bytes::Bytes::new())),
            "response_empty",
            "item.item.response",
        ),
        (
            broken(&|i| inner(i, &|i| i.context.as_mut().unwrap().image = None)),
            "image_missing",
            "item.item.context.image",
        ),
        (broken(&|i| i.corrector = 2), "not_offered", "item.corrector"),
        (broken(&|i| i.item = None), "field_missing", "item.item.context.key.item_id"),
    ];
    for (kind, reason, field) in cases {
        side.send(kind).await;
        let end = side.end().await;
        assert!(end.response.is_empty() && end.reward_before.is_none());
        let refused = invalid(end.verdict.unwrap());
        assert_eq!((refused.reason.as_str(), refused.field.as_str()), (reason, field));
    }
    let nothing = v1::CorrectRequest { kind: None };
    side.requests.as_ref().unwrap().send(nothing).await.unwrap();
    let refused = invalid(side.end().await.verdict.unwrap());
    assert_eq!(refused.reason, "field_missing");
    assert!(words.scored().is_empty(), "nothing of it was worth a scoring");
    side.correct("a", "A bad heart.").await;
    assert_eq!(valid(side.end().await.verdict.unwrap()).tokens, 6);
}

#[tokio::test(start_paused = true)]
async fn a_cancel_and_a_deadline_end_their_items_alone() {
    let (harness, _) = serve(settings(), Arc::new(Whitener(Duration::from_secs(20)))).await;
    let mut side = Side::open(&harness).await;
    side.correct("cancelled", "A bad heart.").await;
    side.send(timed(item("late", "A bad heart."), 5)).await;
    side.correct("patient", "A bad heart.").await;
    side.correct("patient", "Another one.").await;
    let again = side.end().await;
    assert_eq!(invalid(again.verdict.unwrap()).reason, "key_in_use");
    side.send(Kind::Cancel(wire_key("cancelled"))).await;
    side.send(Kind::Cancel(wire_key("never sent"))).await;
    let end = side.end().await;
    assert_eq!(id(&ReplyKind::Final(end.clone())), "cancelled");
    let refused = invalid(end.verdict.unwrap());
    assert_eq!(refused.class, ErrorClass::Cancelled as i32);
    let late = side.end().await;
    assert_eq!(id(&ReplyKind::Final(late.clone())), "late");
    let used = finished(late).outcome.unwrap();
    assert_eq!((used.response.as_str(), used.kept), ("A bad heart.", 0));
    assert_eq!(used.stopped.unwrap().reason, "deadline_passed");
    let patient = finished(side.end().await).outcome.unwrap();
    assert_eq!((patient.response.as_str(), patient.stopped), ("A white heart.", None));
    assert!(side.rest().await.is_empty(), "one end each");
}

#[tokio::test]
async fn guidance_comes_as_a_proposal() {
    let (harness, _) = serve(settings(), ScriptedCorrector::new(Duration::ZERO, [])).await;
    let mut side = Side::open(&harness).await;
    let request = CorrectRequest {
        corrector: CorrectorKind::Guidance,
        ..CorrectRequest::new(request("A bad heart."))
    };
    side.send(Kind::Item(encode_correct_item(Some(wire_key("a")), request))).await;
    let replies = side.rest().await.remove("a").unwrap();
    let [ReplyKind::Scored(_), ReplyKind::Proposal(proposal), ReplyKind::Final(end)] = &replies[..]
    else {
        panic!("{replies:?}");
    };
    assert!(proposal.response.is_empty());
    let prompt = std::str::from_utf8(&proposal.guidance).unwrap();
    assert!(prompt.contains("Doubtful words: \"bad\""));
    assert_eq!(&end.response[..], b"A bad heart.");
}

#[tokio::test]
async fn a_full_stream_waits_and_a_caller_who_does_not_read_is_not_read_from() {
    let (harness, words) = serve(settings(), Arc::new(Whitener(Duration::ZERO))).await;
    let mut side = Side::open(&harness).await;
    let requests = side.requests.clone().unwrap();
    let long = "A white heart. ".repeat(500);
    let sender = tokio::spawn(async move {
        for n in 0..150 {
            let kind = Some(Kind::Item(item(&n.to_string(), &long)));
            requests.send(v1::CorrectRequest { kind }).await.unwrap();
        }
    });
    let mut before = usize::MAX;
    while words.scored().len() != before || before == 0 {
        before = words.scored().len();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert!(before < 100, "{before} items were scored for a caller who reads nothing");
    let rest = side.rest().await;
    sender.await.unwrap();
    assert_eq!(rest.len(), 150);
}

#[tokio::test(start_paused = true)]
async fn a_drain_finishes_what_runs_and_refuses_what_comes() {
    let (mut harness, _) = serve(settings(), Arc::new(Whitener(Duration::from_secs(2)))).await;
    let mut side = Side::open(&harness).await;
    side.correct("old", "A bad heart.").await;
    assert!(matches!(side.reply().await, Some(ReplyKind::Scored(_))));
    harness.stop();
    let Some(ReplyKind::Notice(notice)) = side.reply().await else { panic!("a notice") };
    assert_eq!(notice.kind, NoticeKind::Draining as i32);
    side.correct("new", "A bad heart.").await;
    let refused = invalid(side.end().await.verdict.unwrap());
    assert_eq!((refused.class, refused.retryable), (ErrorClass::Draining as i32, true));
    let old = finished(side.end().await).outcome.unwrap();
    assert_eq!(old.response, "A white heart.");
    assert_eq!(side.reply().await, None, "the server ends the stream");
    assert_eq!(harness.stopped().await, Drained::Complete);
}

#[tokio::test]
async fn work_is_dropped_when_the_caller_goes_away() {
    let (harness, words) = serve(settings(), Arc::new(Whitener(Duration::from_hours(1)))).await;
    let mut side = Side::open(&harness).await;
    side.correct("a", "A bad heart.").await;
    assert!(matches!(side.reply().await, Some(ReplyKind::Scored(_))));
    drop(side);
    let mut other = Side::open(&harness).await;
    other.correct("a", "A white heart.").await;
    assert_eq!(finished(other.end().await).outcome.unwrap().kept, 0);
    assert_eq!(words.scored().len(), 2);
}
