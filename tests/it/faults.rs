//! Real processes killed, stopped, cut off, half open and slow: every item is accounted for, none
//! is a false zero, no group is mixed, and nothing is computed twice where the server lived.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use sleuth_client::RetrySettings;
use sleuth_lab::load::{
    Arrivals, DriveSettings, Outcome, Plan, PlanSettings, Remote, RemoteSettings, Until, drive,
};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::proxy::Proxy;
use crate::server::{Server, free_address};

/// Batches that take long enough for items to be on their way at any moment.
pub(crate) const DEVICE: [&str; 2] = ["--simulated-device", "100000,0.02"];

fn plan(seconds: u64, images: usize) -> PlanSettings {
    PlanSettings {
        arrivals: Arrivals::Poisson { rate_per_second: 150.0 },
        group_size: 6,
        images,
        until: Until::Seconds(Duration::from_secs(seconds)),
        warm_up: Duration::ZERO,
        least_words: 8,
        most_words: 24,
        seed: 5,
    }
}

/// Drives a server with a client that tries again until it has a verdict.
pub(crate) async fn load(address: SocketAddr, seconds: u64) -> JoinHandle<Outcome> {
    load_of(&format!("http://{address}"), seconds, 4).await
}

/// The same, of several servers, with so many images.
pub(crate) async fn load_of(urls: &str, seconds: u64, images: usize) -> JoinHandle<Outcome> {
    let settings = RemoteSettings {
        connections: 2,
        retry: RetrySettings {
            attempts: 100,
            first_pause: Duration::from_millis(50),
            longest_pause: Duration::from_millis(200),
        },
        keepalive: Duration::from_millis(700),
        ..RemoteSettings::default()
    };
    let plan = plan(seconds, images);
    let remote = Remote::connect(urls, settings, plan).await.unwrap();
    let plan = Plan::try_new(plan).unwrap();
    let never = std::future::pending();
    tokio::spawn(drive(plan, Arc::new(remote), DriveSettings::default(), never))
}

/// Every item has its rewards, once.
pub(crate) fn assert_all_valid(outcome: &Outcome) -> u64 {
    let counts = &outcome.counts;
    let verdict = counts.verdict();
    assert!(verdict.passes(), "{:?}: {counts:?}", verdict.problems());
    assert_eq!((counts.valid, counts.not_sent), (counts.sent, 0), "{counts:?}");
    assert!(counts.sent > 300, "{counts:?}");
    counts.sent
}

pub(crate) async fn after(millis: u64) {
    sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_loses_no_item() {
    let address = free_address();
    let server = Server::start(Some(address), &DEVICE);
    let load = load(address, 4).await;
    after(1000).await;
    server.kill();
    after(300).await;
    let again = Server::start(Some(address), &DEVICE);
    assert_all_valid(&load.await.unwrap());
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_loses_no_item_and_computes_none_twice() {
    let mut server = Server::start(None, &DEVICE);
    let load = load(server.address, 4).await;
    after(1000).await;
    server.signal("STOP");
    after(2500).await;
    server.signal("CONT");
    let sent = assert_all_valid(&load.await.unwrap());
    assert!(server.terminate().success());
    assert_eq!(server.computed(), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_half_open_and_slow_connections_lose_no_item_and_compute_none_twice() {
    let mut server = Server::start(None, &DEVICE);
    let proxy = Proxy::start(server.address).await;
    let load = load(proxy.address, 6).await;
    for _ in 0..3 {
        after(400).await;
        proxy.cut();
    }
    after(500).await;
    proxy.freeze();
    after(2000).await;
    proxy.slow_down(30_000);
    after(1500).await;
    proxy.slow_down(0);
    let sent = assert_all_valid(&load.await.unwrap());
    assert!(server.terminate().success());
    assert_eq!(server.computed(), sent);
}
