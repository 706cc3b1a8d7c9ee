//! Versions of both architectures on one running server, and a router before it.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use sleuth_client::Client;
use sleuth_core::{Group, ScoreRequest};

use super::{adapter, folder};
use crate::command::{copy, mini, path, picture};
use crate::server::Server;
use crate::swap::admin;

/// A model root with `mini`, and `llama` with an adapter folder beside it.
fn root() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    copy(&mini(), &root.path().join("mini"));
    copy(&folder(), &root.path().join("llama"));
    adapter(&root.path().join("delta"));
    root
}

fn request(response: &str) -> ScoreRequest<Bytes> {
    ScoreRequest::new(fs::read(picture()).unwrap().into(), response)
}

/// Groups of four through a router, one after the other, until told to stop; the versions of each.
async fn groups(client: Client, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut all = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let members = (0..4).map(|n| {
            let mut request = request(&format!("There are {n} red circles."));
            let id = format!("g{}", all.len());
            request.context.group =
                Some(Group { id, size: Some(4), expected_response_tokens: None });
            client.score(request)
        });
        let scored = futures::future::join_all(members).await;
        let versions: Vec<String> =
            scored.into_iter().map(|s| s.expect("nothing fails").version).collect();
        assert!(versions.iter().all(|v| *v == versions[0]), "a mixed group: {versions:?}");
        all.push(versions[0].clone());
    }
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_paligemma_and_llama_follow_each_other() {
    let root = root();
    let model = root.path().join("mini");
    let arguments = ["--model", path(&model), "--model-root", path(root.path())];
    let mut server = Server::start(None, &arguments);
    let client = Client::connect(server.url()).await.unwrap();
    let first = client.model().await.unwrap();
    let before = client.score(request("A red star.")).await.unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let load = tokio::spawn(groups(client.clone(), Arc::clone(&stop)));
    let mut swapped = Vec::new();
    for folder in ["llama", "mini", "llama"] {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let done = admin(&server, &["load-weights", folder]).unwrap();
        swapped.push(done["version"].as_str().unwrap().to_owned());
    }
    let card = client.model().await.unwrap();
    assert_eq!(card.architecture, "MllamaForConditionalGeneration");
    assert_eq!((&card.version, &swapped[1]), (&swapped[0], &first.version));
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::SeqCst);
    let seen = load.await.unwrap();
    assert!(swapped[..2].iter().all(|version| seen.contains(version)), "{seen:?}");

    // An adapter over the new base, by name.
    admin(&server, &["load-adapter", "delta", "delta"]).unwrap();
    let plain = client.score(request("A red star.")).await.unwrap();
    let mut named = request("A red star.");
    named.context.adapter = Some("delta".to_owned());
    let adapted = client.score(named).await.unwrap();
    assert_ne!(plain.tokens[1].logit.to_bits(), adapted.tokens[1].logit.to_bits());
    assert_eq!((&plain.version, plain.tokens.len()), (&swapped[2], adapted.tokens.len()));
    admin(&server, &["unload-adapter", "delta"]).unwrap();
    admin(&server, &["load-weights", "mini"]).unwrap();
    let after = client.score(request("A red star.")).await.unwrap();
    assert_eq!(after.tokens, before.tokens);
    assert!(server.terminate().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_before_it_gives_what_the_replica_gives() {
    let model = folder();
    let replicas = [(); 2].map(|()| Server::start(None, &["--model", path(&model)]));
    let router = Server::route(None, &[replicas[0].address, replicas[1].address], &[]);
    let direct = Client::connect(replicas[0].url()).await.unwrap();
    let routed = Client::connect(router.url()).await.unwrap();
    assert_eq!(routed.model().await.unwrap(), direct.model().await.unwrap());
    let items: Vec<_> = (0..8).map(|n| request(&format!("There are {n} circles."))).collect();
    let scored = routed.score_batch(items.clone()).await.unwrap();
    for (item, scored) in items.into_iter().zip(scored) {
        assert_eq!(scored.unwrap().tokens, direct.score(item).await.unwrap().tokens);
    }
}
