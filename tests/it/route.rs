//! A router before real replicas: the same answers as theirs, groups where their prefix is, and
//! replicas that die, freeze and are exchanged.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use sleuth_client::{Client, ClientError, ClientSettings, Event, RetrySettings};
use sleuth_core::{
    CorrectRequest, CorrectorKind, Group, ImageSource, PolicyTokens, ScoreRequest, Scored,
};

use crate::command::{copy, mini, path, picture, run, stderr, stdout};
use crate::faults::{DEVICE, after, assert_all_valid, load, load_of};
use crate::server::{Server, free_address};

const TEXT: &str = "The blue triangle is on the left. The large heart is red.";

fn request(response: &str) -> ScoreRequest<Bytes> {
    ScoreRequest::new(fs::read(picture()).unwrap().into(), response)
}

fn member(group: &str, response: &str) -> ScoreRequest<Bytes> {
    let mut request = request(response);
    request.context.group =
        Some(Group { id: group.to_owned(), size: Some(8), expected_response_tokens: Some(20) });
    request
}

/// Answers once, as it comes.
async fn client(address: SocketAddr) -> Client {
    let settings = ClientSettings { retry: RetrySettings::NEVER, ..ClientSettings::default() };
    Client::connect_with(format!("http://{address}"), settings).await.unwrap()
}

/// Without what another run of the same has otherwise.
fn content(scored: Scored) -> Scored {
    Scored {
        timing: sleuth_core::Timing::default(),
        cache: sleuth_core::CacheUse::default(),
        ..scored
    }
}

fn view(router: &Server) -> Value {
    let (status, text) = router.page("/replicas");
    assert_eq!(status, 200);
    // The page comes in chunks.
    let json = &text[text.find('{').unwrap()..=text.rfind('}').unwrap()];
    serde_json::from_str(json).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_cannot_tell_a_router_from_a_replica() {
    let replicas = [Server::start(None, &[]), Server::start(None, &[])];
    let addresses = [replicas[0].address, replicas[1].address];
    let router = Server::route(None, &addresses, &[]);
    let (direct, routed) = (client(addresses[0]).await, client(router.address).await);

    assert_eq!(routed.model().await.unwrap(), direct.model().await.unwrap());
    assert_eq!(routed.tokenize(TEXT).await.unwrap(), direct.tokenize(TEXT).await.unwrap());

    let ends: Vec<u32> = (1..=TEXT.len() as u32 / 3).map(|n| n * 3).collect();
    let mut of_policy = request(TEXT);
    of_policy.policy = Some(PolicyTokens::Ends(ends));
    for item in [request(TEXT), of_policy, member("g", TEXT)] {
        let expected = content(direct.score(item.clone()).await.unwrap());
        assert_eq!(content(routed.score(item.clone()).await.unwrap()), expected);
        let batch = routed.score_batch(vec![item.clone(), item]).await.unwrap();
        assert_eq!(batch.len(), 2);
        for scored in batch {
            assert_eq!(content(scored.unwrap()), expected);
        }
    }

    let digest = routed.put_image(fs::read(picture()).unwrap().into()).await.unwrap();
    assert_eq!(routed.has_images(&[digest, [0; 32]]).await.unwrap(), [true, false]);
    let mut named = request(TEXT);
    named.context.image = ImageSource::Digest(digest);
    assert_eq!(
        content(routed.score(named.clone()).await.unwrap()),
        content(direct.score(request(TEXT)).await.unwrap())
    );

    let mut item = routed.open(named.context.clone(), false).await.unwrap();
    for piece in TEXT.as_bytes().chunks(7) {
        item.append(Bytes::copy_from_slice(piece), None).await;
    }
    item.close().await;
    let mut streamed = Vec::new();
    let verdict = loop {
        match item.next().await {
            Event::Tokens(tokens) => streamed.extend(tokens),
            Event::Policy(_) => panic!("no policy was given"),
            Event::Verdict(verdict) => break content(verdict.unwrap()),
        }
    };
    let expected = content(direct.score(request(TEXT)).await.unwrap());
    assert_eq!((&verdict, &streamed), (&expected, &expected.tokens));

    for refused in [&direct, &routed] {
        let mut bad = request(TEXT);
        bad.context.options.threshold = Some(2.0);
        let ClientError::Refused(refusal) = refused.score(bad).await.unwrap_err() else { panic!() };
        assert_eq!(refusal.field.as_deref(), Some("score.context.options.threshold"));
        let mut unknown = request(TEXT);
        unknown.context.image = ImageSource::Digest([7; 32]);
        let ClientError::Refused(refusal) = refused.score(unknown).await.unwrap_err() else {
            panic!()
        };
        assert_eq!((refusal.reason.as_str(), refusal.retryable), ("image_unknown", true));
        let damaged = ScoreRequest::new(Bytes::from_static(b"no image"), TEXT);
        let ClientError::Refused(refusal) = refused.score(damaged).await.unwrap_err() else {
            panic!()
        };
        assert_eq!(refusal.field.as_deref(), Some("score.context.image.data"));
        let mut version = request(TEXT);
        version.context.required_version = Some("none".to_owned());
        let ClientError::Refused(refusal) = refused.score(version).await.unwrap_err() else {
            panic!()
        };
        assert_eq!((refusal.reason.as_str(), refusal.retryable), ("version_mismatch", false));
        assert_eq!(refusal.field.as_deref(), Some("score.context.required_version"));
        let mut adapter = request(TEXT);
        adapter.context.adapter = Some("none".to_owned());
        let ClientError::Refused(refusal) = refused.score(adapter).await.unwrap_err() else {
            panic!()
        };
        assert_eq!(refusal.reason, "adapter_unknown");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn corrections_come_through_a_router() {
    let replica = Server::start(None, &[]);
    let router = Server::route(None, &[replica.address], &[]);
    let ask = || CorrectRequest {
        item: request(TEXT),
        corrector: CorrectorKind::Guidance,
        ..CorrectRequest::new(request(TEXT))
    };
    let direct = client(replica.address).await.correct(ask()).await.unwrap();
    let expected = direct.finished().await.unwrap();
    let mut routed = client(router.address).await.correct(ask()).await.unwrap();
    let mut replies = Vec::new();
    while let Some(reply) = routed.next().await.unwrap() {
        replies.push(reply);
    }
    let Some(sleuth_client::CorrectReply::Final(end)) = replies.pop() else { panic!("no end") };
    assert_eq!(replies.len(), 2, "scored, and the prompt");
    let (end, expected) = (end.outcome.unwrap(), expected.outcome.unwrap());
    assert_eq!((end.response, end.reward), (expected.response, expected.reward));
    assert_eq!(end.version, expected.version);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_goes_where_its_prefix_is_and_its_image_goes_there_once() {
    let replicas: Vec<Server> = (0..3).map(|_| Server::start(None, &DEVICE)).collect();
    let addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.address).collect();
    let router = Server::route(None, &addresses, &[]);
    let client = client(router.address).await;
    for group in 0..6 {
        let items = (0..8).map(|n| {
            let mut item = member(&format!("g{group}"), &format!("Response {n}."));
            item.context.prompt = Some(format!("prompt {group}"));
            client.score(item)
        });
        for scored in futures::future::join_all(items).await {
            scored.unwrap();
        }
    }
    let view = view(&router);
    let placed = &view["placed"];
    let count = |name: &str| placed[name].as_u64().unwrap();
    let first = count("rendezvous") + count("spilled") + count("split");
    assert_eq!(count("group") + count("resident") + first, 48, "{view}");
    assert_eq!(view["prefixes_computed"].as_u64().unwrap(), first, "{view}");
    assert!(view["images_sent"].as_u64().unwrap() <= 3, "{view}");
    assert_eq!(view["failovers"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_a_frozen_and_a_restarted_replica_lose_no_item() {
    let addresses = [free_address(), free_address(), free_address()];
    let mut replicas: Vec<Option<Server>> =
        addresses.iter().map(|&at| Some(Server::start(Some(at), &DEVICE))).collect();
    let router = Server::route(None, &addresses, &["--silence", "0.5"]);
    let load = load(router.address, 8).await;
    after(1000).await;
    replicas[0].take().unwrap().kill();
    after(1500).await;
    replicas[1].as_ref().unwrap().signal("STOP");
    after(1500).await;
    replicas[0] = Some(Server::start(Some(addresses[0]), &DEVICE));
    after(500).await;
    replicas[1].as_ref().unwrap().signal("CONT");
    after(500).await;
    let drained = replicas[2].as_mut().unwrap().terminate();
    assert!(drained.success());
    assert_all_valid(&load.await.unwrap());
    let view = view(&router);
    let name = addresses[2].to_string();
    let drained = view["replicas"].as_array().unwrap().iter().find(|r| r["name"] == name.as_str());
    assert_eq!(drained.unwrap()["state"], "lost", "{view}");
    assert!(view["failovers"].as_u64().unwrap() > 0, "{view}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_item_goes_on_elsewhere_and_nothing_is_told_twice() {
    let addresses = [free_address(), free_address()];
    let mut replicas: Vec<Option<Server>> =
        addresses.iter().map(|&at| Some(Server::start(Some(at), &[]))).collect();
    let router = Server::route(None, &addresses, &["--silence", "0.5"]);
    let direct = client(addresses[0]).await;
    let expected = content(direct.score(request(TEXT)).await.unwrap());
    let mut item = client(router.address).await.open(request("").context, false).await.unwrap();
    let (first, rest) = TEXT.split_at(TEXT.len() / 2);
    item.append(first.to_owned(), None).await;
    let Event::Tokens(mut tokens) = item.next().await else { panic!("rewards come first") };
    let busy = view(&router)["replicas"]
        .as_array()
        .unwrap()
        .iter()
        .position(|replica| replica["unfinished_items"] == 1)
        .unwrap();
    let name = view(&router)["replicas"][busy]["name"].as_str().unwrap().to_owned();
    let place = addresses.iter().position(|address| address.to_string() == name).unwrap();
    replicas[place].take().unwrap().kill();
    item.append(rest.to_owned(), None).await;
    item.close().await;
    let verdict = loop {
        match item.next().await {
            Event::Tokens(more) => tokens.extend(more),
            Event::Policy(_) => panic!("no policy was given"),
            Event::Verdict(verdict) => break content(verdict.unwrap()),
        }
    };
    assert_eq!((&verdict, &tokens), (&expected, &expected.tokens));
}

/// Everything is exchanged one after the other, and two processes die on the way.
#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_replicas_and_routers_fails_no_item() {
    let addresses = [free_address(), free_address(), free_address(), free_address()];
    let mut replicas: Vec<Server> =
        addresses.iter().map(|&at| Server::start(Some(at), &DEVICE)).collect();
    let fast = ["--silence", "0.5"];
    let at = [free_address(), free_address()];
    let mut routers = at.map(|at| Server::route(Some(at), &addresses, &fast));
    let load = load_of(&format!("http://{},http://{}", at[0], at[1]), 14, 4).await;
    after(1000).await;
    for (place, replica) in replicas.iter_mut().enumerate() {
        if place == 2 {
            replica.signal("KILL");
            replica.ended();
        } else {
            assert!(replica.terminate().success());
        }
        *replica = Server::start(Some(addresses[place]), &DEVICE);
        after(500).await;
    }
    assert!(routers[0].terminate().success());
    routers[0] = Server::route(Some(at[0]), &addresses, &fast);
    after(500).await;
    routers[1].signal("KILL");
    routers[1].ended();
    routers[1] = Server::route(Some(at[1]), &addresses, &fast);
    assert_all_valid(&load.await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_of_another_model_is_left_out_and_the_view_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("other");
    copy(&mini(), &other);
    let own = Server::start(None, &[]);
    let router = Server::route(None, &[own.address], &[]);
    let client = client(router.address).await;
    client.score(request(TEXT)).await.unwrap();
    drop((router, client));

    let foreign = Server::start(None, &["--model", path(&other)]);
    let addresses = [own.address, foreign.address];
    let router = Server::route(None, &addresses, &[]);
    let states = || {
        let view = view(&router);
        let replicas = view["replicas"].as_array().unwrap().clone();
        let mut states: Vec<String> =
            replicas.iter().map(|r| r["state"].as_str().unwrap().to_owned()).collect();
        states.sort();
        (states, replicas)
    };
    let mut seen = states();
    while seen.0.contains(&"lost".to_owned()) {
        after(50).await;
        seen = states();
    }
    assert_eq!(seen.0, ["serving", "unfit"]);
    let whys = seen.1.iter().filter_map(|replica| replica["why"].as_str());
    assert!(whys.clone().count() == 1 && whys.into_iter().all(|why| why.contains("serves ")));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_replica_among_a_thousand_addresses_is_found() {
    let replica = Server::start(None, &DEVICE);
    let mut addresses: Vec<SocketAddr> =
        (1..=999).map(|port| SocketAddr::from(([127, 0, 0, 2], port))).collect();
    addresses.insert(500, replica.address);
    let router = Server::route(None, &addresses, &[]);
    let scored = client(router.address).await.score(request(TEXT)).await.unwrap();
    assert!(!scored.tokens.is_empty());
    let replicas = view(&router)["replicas"].as_array().unwrap().len();
    assert_eq!(replicas, 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_there_is_no_terminal_top_prints_one_table() {
    let replica = Server::start(None, &DEVICE);
    let router = Server::route(None, &[replica.address], &[]);
    client(router.address).await.score(request(TEXT)).await.unwrap();
    let table = stdout(&["top", &format!("http://{}", router.admin)]);
    assert!(
        table.starts_with("1 of 1 replicas serving, 0 items unfinished, 1 finished"),
        "{table}"
    );
    let row = table.lines().find(|line| line.starts_with(&replica.address.to_string())).unwrap();
    assert!(row.contains("serving") && row.contains("simulated-"), "{table}");
    let nobody = format!("http://{}", free_address());
    let output = run(&["top", &nobody]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is it the admin port of a router?"), "{}", stderr(&output));
}

#[test]
fn wrong_settings_say_what_to_write() {
    for (arguments, said) in [
        (&["route"][..], "a router needs replicas: --replicas http://"),
        (&["route", "--replicas", "http://a:1,http://a:1"][..], "router.replicas (--replicas)"),
        (&["route", "--replicas", "kubernetes://x"][..], "router.replicas (--replicas)"),
        (&["route", "--replicas", "http://a:1", "--silence", "0"][..], "router.silence_seconds"),
        (
            &["route", "--replicas", "http://a:1", "--replica-ca", "/no/such/file"][..],
            "cannot read /no/such/file",
        ),
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        assert!(stderr(&output).contains(said), "{arguments:?}: {}", stderr(&output));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_tells_its_load_its_prefixes_and_that_it_drains() {
    let slow = ["--simulated-device", "100000,0.3", "--drain-lag", "1"];
    let mut replica = Server::start(None, &slow);
    let client = client(replica.address).await;
    let (least, most) = (Duration::from_millis(10), Duration::from_millis(200));
    let mut loads = client.watch_load(least, most).await.unwrap();
    let first = loads.next().await.unwrap().unwrap();
    assert_eq!((first.sequence, first.draining), (0, false));
    assert_eq!(first.load.versions.len(), 1);
    assert!(first.prefixes.added.is_empty());

    let card = client.model().await.unwrap();
    let image = *blake3::hash(&fs::read(picture()).unwrap()).as_bytes();
    let own = sleuth_core::prefix_digest(&card.version, &image, &card.prompt);
    let scoring = client.clone();
    let item = tokio::spawn(async move { scoring.score(request(TEXT)).await });
    let mut was_busy = false;
    let prefix = loop {
        let report = loads.next().await.unwrap().unwrap();
        was_busy |= report.load.unfinished_items > 0;
        if let Some(prefix) = report.prefixes.added.first() {
            break *prefix;
        }
    };
    assert_eq!((prefix.digest, was_busy), (own, true));
    assert!(prefix.positions > 16);
    item.await.unwrap().unwrap();

    replica.signal("TERM");
    while !loads.next().await.unwrap().unwrap().draining {}
    // It still takes items for a while: what was on its way arrives.
    client.score(request(TEXT)).await.unwrap();
    drop((loads, client));
    assert!(replica.ended().success());

    let other = Server::start(None, &DEVICE);
    let client = self::client(other.address).await;
    let day = Duration::from_hours(24);
    let Err(ClientError::Refused(refusal)) = client.watch_load(least, day).await else { panic!() };
    assert_eq!(refusal.field.as_deref(), Some("max_interval"));
}

/// As while replicas are exchanged one by one: half of them answer with another version.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_two_versions_never_share_a_group() {
    let other = [&DEVICE[..], &["--tau", "0.5"]].concat();
    let replicas = [Server::start(None, &DEVICE), Server::start(None, &other)];
    let addresses = replicas.each_ref().map(|replica| replica.address);
    let router = Server::route(None, &addresses, &[]);
    // So many that neither replica is the first choice of all.
    let outcome = load_of(&router.url(), 4, 48).await.await.unwrap();
    assert_all_valid(&outcome);
    assert_eq!((outcome.counts.versions.len(), outcome.counts.mixed_groups), (2, 0));
}
