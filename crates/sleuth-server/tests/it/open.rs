//! Items whose response is still being generated, over the real service and a fake model.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sleuth_client::{Client, ClientSettings, Event};
use sleuth_core::{Context, ImageSource, PolicyTokens, Scored};
use sleuth_engine::fake::FakeModel;
use sleuth_engine::{Engine, EngineSettings};
use sleuth_proto::v1;
use sleuth_proto::v1::score_tokens_request::Kind;
use sleuth_proto::v1::score_tokens_response::Kind as ReplyKind;
use sleuth_service::fake::{FakePrepare, card};
use sleuth_service::{LoadedModel, ScoreService, ServiceSettings};
use sleuth_wire::encode_context;

use crate::harness::{Harness, id, invalid, settings, start_with, valid, wire_key};

const RESPONSE: &str = "a cat. no!";

async fn serving() -> (Harness, ScoreService) {
    let (model, _) = FakeModel::new([]);
    let engine = Engine::start(model.builder(), EngineSettings::default()).await.unwrap();
    let model = LoadedModel::new(card(), FakePrepare::default(), engine);
    let service = ScoreService::new(model, ServiceSettings::default());
    (start_with(settings(), Arc::new(service.clone())).await, service)
}

fn context() -> Context<Bytes> {
    Context::new(ImageSource::Data(Bytes::from_static(b"cat")))
}

fn open(name: &str) -> Kind {
    Kind::Open(encode_context(Some(wire_key(name)), context()))
}

fn append(name: &str, offset: u64, text: &str) -> Kind {
    let text = Bytes::copy_from_slice(text.as_bytes());
    Kind::Append(v1::Append { key: Some(wire_key(name)), offset, text, policy: None })
}

async fn whole(client: &Client) -> Scored {
    let mut request = sleuth_core::ScoreRequest::new(Bytes::from_static(b"cat"), RESPONSE);
    request.policy = Some(PolicyTokens::Ends(vec![5, 7, 10, 10]));
    client.score(request).await.unwrap()
}

#[tokio::test]
async fn a_response_in_pieces_has_the_rewards_of_the_whole() {
    let (harness, _service) = serving().await;
    let mut caller = harness.caller().await;
    caller.send(open("a")).await;
    caller.send(append("a", 0, "a ca")).await;
    caller.send(append("a", 2, "cat. no")).await;
    caller.send(append("a", 9, "!")).await;
    caller.send(Kind::Close(wire_key("a"))).await;
    caller.score("b", RESPONSE).await;
    let (mut tokens, mut verdicts) = ([Vec::new(), Vec::new()], Vec::new());
    while verdicts.len() < 2 {
        match caller.reply().await.unwrap().unwrap() {
            ReplyKind::Scores(scores) => {
                let name = scores.key.unwrap().item_id;
                let at = usize::from(name == "b");
                assert_eq!(scores.first_token as usize, tokens[at].len());
                tokens[at].extend(scores.logit.iter().map(|x| x.to_bits()));
            }
            ReplyKind::Verdict(verdict) => verdicts.push(valid(verdict)),
            ReplyKind::Notice(notice) => panic!("{notice:?}"),
        }
    }
    assert_eq!(tokens[0].len(), RESPONSE.len());
    assert_eq!(tokens[0], tokens[1]);
    assert_eq!(verdicts[0].reward.to_bits(), verdicts[1].reward.to_bits());
}

#[tokio::test]
async fn each_open_item_gets_one_verdict_and_ends_no_stream() {
    let (harness, service) = serving().await;
    let mut caller = harness.caller().await;
    let key = |name| Some(wire_key(name));
    caller.send(open("gap")).await;
    caller.send(append("gap", 5, "x")).await;
    assert_eq!(invalid(caller.verdict().await).reason, "append_gap");
    caller.send(append("gap", 0, "late")).await;
    caller.send(Kind::Close(wire_key("gap"))).await;

    caller.send(open("twice")).await;
    caller.send(open("twice")).await;
    let verdict = caller.verdict().await;
    assert_eq!((id(&verdict), verdict.clone().key), ("twice", key("twice")));
    assert_eq!(invalid(verdict).reason, "key_in_use");
    caller.send(Kind::Cancel(wire_key("twice"))).await;
    assert_eq!(invalid(caller.verdict().await).reason, "caller_cancelled");

    let policy = Some(v1::PolicyTokens { byte_end: vec![1], piece: vec![Bytes::new()] });
    caller.send(open("bad")).await;
    let text = Bytes::from_static(b"x");
    let bad = v1::Append { key: key("bad"), offset: 0, text, policy };
    caller.send(Kind::Append(bad)).await;
    let refused = invalid(caller.verdict().await);
    assert_eq!(
        (refused.reason.as_str(), refused.field.as_str()),
        ("field_invalid", "append.policy")
    );

    for n in 0..5 {
        caller.send(open(&n.to_string())).await;
    }
    assert_eq!(invalid(caller.verdict().await).reason, "queue_full", "four may be open");
    for n in 0..4 {
        caller.send(append(&n.to_string(), 0, "fine")).await;
        caller.send(Kind::Close(wire_key(&n.to_string()))).await;
    }
    for _ in 0..4 {
        valid(caller.verdict().await);
    }
    assert!(caller.rest().await.is_empty());
    while service.stats().appended_bytes < 16 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn the_client_streams_policy_tokens_and_goes_on_after_a_cut() {
    let (harness, service) = serving().await;
    let client = Client::from_channel(harness.channel.clone(), ClientSettings::default());
    let expected = whole(&client).await.policy.unwrap();
    let mut item = client.open(context(), true).await.unwrap();
    let ends = |ends: &[u32]| Some(PolicyTokens::Ends(ends.to_vec()));
    item.append("a cat. ", ends(&[5, 7])).await;
    let mut rewards = Vec::new();
    let Event::Policy(first) = item.next().await else { panic!("rewards") };
    rewards.extend(first);
    client.cut().await;
    item.append("no!", ends(&[10])).await;
    item.append("", ends(&[10])).await;
    item.close().await;
    let scored = loop {
        match item.next().await {
            Event::Policy(more) => rewards.extend(more),
            Event::Tokens(_) => panic!("policy tokens were given"),
            Event::Verdict(verdict) => break verdict.unwrap(),
        }
    };
    assert_eq!(rewards, expected);
    assert_eq!(scored.policy.unwrap(), expected);
    // What was sent before the server noticed the cut may have been enough to end the item.
    let stats = service.stats().idempotency;
    assert_eq!(stats.joined + stats.replayed, 1, "{stats:?}");
}

#[tokio::test]
async fn whole_items_survive_a_cut_and_are_computed_once() {
    let (harness, service) = serving().await;
    let client = Client::from_channel(harness.channel.clone(), ClientSettings::default());
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { whole(&client).await })
        })
        .collect();
    client.cut().await;
    for call in calls {
        assert_eq!(call.await.unwrap().policy.unwrap().len(), 4);
    }
    drop(service);
}
