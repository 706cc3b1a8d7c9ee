//! The router's logic over a simulated network: replicas that crash, are cut off and hang, in an
//! order that a seed decides. Every item has its rewards, once, and of one version.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail as tests do")]

mod kubernetes;
mod replica;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use sleuth_client::{Client, ClientError, ClientSettings};
use sleuth_core::{Context, Group, ImageSource, ScoreRequest, Scored};
use sleuth_router::discovery::{Endpoint, EndpointState, Membership};
use sleuth_router::{Dial, Router, RouterSettings};
use sleuth_service::{Appended, BoxFuture, Caller, OpenEvent, Rewards, Scorer as _};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use turmoil::{Builder, Sim};

use self::replica::{Ledger, PORT, expected, replica};

const REPLICAS: [&str; 3] = ["r0", "r1", "r2"];
const ROUTER: &str = "router";

/// Reaches replicas over the simulated network.
struct Simulated(ClientSettings);

impl Dial for Simulated {
    fn dial(&self, url: &str) -> BoxFuture<'_, Result<Client, ClientError>> {
        let url = url.to_owned();
        Box::pin(async move {
            let host = url.trim_start_matches("http://").split(':').next().unwrap().to_owned();
            let connect = tower::service_fn(move |_| {
                let host = host.clone();
                async move {
                    let stream = turmoil::net::TcpStream::connect((host.as_str(), PORT)).await?;
                    Ok::<_, std::io::Error>(TokioIo::new(stream))
                }
            });
            let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap();
            let channel = endpoint.connect_with_connector(connect).await;
            Ok(Client::from_channel(channel.map_err(ClientError::Connect)?, self.0))
        })
    }
}

fn members() -> watch::Receiver<Membership> {
    let endpoints = REPLICAS.map(|name| Endpoint {
        name: Arc::from(name),
        url: format!("http://{name}:{PORT}"),
        zone: None,
        state: EndpointState::Ready,
    });
    let membership = Membership { endpoints: endpoints.to_vec(), ..Membership::default() };
    // The last sender that is dropped leaves who is there.
    watch::channel(membership).1
}

async fn router() -> Router {
    let settings = RouterSettings {
        silence: Duration::from_millis(600),
        patience: Duration::from_secs(20),
        max_attempts: 20,
        ..RouterSettings::default()
    };
    let dial = Simulated(settings.client());
    let router = Router::start_with(settings, members(), Arc::new(dial));
    router.ready().await;
    router
}

fn context(group: usize) -> Context<Bytes> {
    let mut context =
        Context::new(ImageSource::Data(Bytes::from(format!("image {group}").into_bytes())));
    context.group =
        Some(Group { id: format!("g{group}"), size: Some(4), expected_response_tokens: Some(12) });
    context.timeout = Some(Duration::from_mins(1));
    context
}

async fn whole(router: Router, n: usize) -> (String, Scored) {
    let text = format!("whole item {n}");
    let request = ScoreRequest { context: context(n / 4), response: text.clone(), policy: None };
    let caller = Caller::new("tenant");
    let scored = router.score(&caller, request).await;
    (text, scored.unwrap_or_else(|failure| panic!("item {n}: {failure}")))
}

/// An item that is generated in pieces; what is told of it must be told once, in order.
async fn open(router: Router, n: usize) -> (String, Scored) {
    let text = format!("open item number {n} of a longer text");
    let mut ungrouped = context(n);
    ungrouped.group = None;
    let caller = Caller::new("tenant");
    let mut item = router.open(&caller, ungrouped).await.unwrap();
    let mut told = Vec::new();
    for (place, piece) in text.as_bytes().chunks(5).enumerate() {
        let piece = Bytes::copy_from_slice(piece);
        item.append(Appended { offset: place as u64 * 5, text: piece, policy: None }).await;
        sleep(Duration::from_millis(120)).await;
    }
    item.close().await;
    loop {
        match item.next().await {
            OpenEvent::Scores { first, rewards: Rewards::Model(tokens) } => {
                assert_eq!(first, told.len(), "item {n}");
                told.extend(tokens);
            }
            OpenEvent::Scores { .. } => panic!("no policy was given"),
            OpenEvent::Verdict(scored) => {
                let scored = scored.unwrap_or_else(|failure| panic!("open {n}: {failure}"));
                assert_eq!(told, scored.tokens, "item {n}");
                return (text, scored);
            }
        }
    }
}

/// Sends items for four seconds, whole ones and open ones.
async fn drive(ledger: Ledger) -> turmoil::Result {
    let router = router().await;
    let mut items = JoinSet::new();
    for n in 0..80 {
        items.spawn(whole(router.clone(), n));
        if n % 8 == 0 {
            items.spawn(open(router.clone(), n));
        }
        sleep(Duration::from_millis(50)).await;
    }
    let mut versions = HashMap::new();
    while let Some(item) = items.join_next().await {
        let (text, scored) = item?;
        let own = expected(&text, &scored.version);
        assert_eq!((&scored.tokens, scored.reward), (&own.tokens, own.reward), "{text}");
        if let Some(n) = text.strip_prefix("whole item ") {
            let group = n.parse::<usize>()? / 4;
            let version = versions.entry(group).or_insert_with(|| scored.version.clone());
            assert_eq!(*version, scored.version, "group {group}");
        }
    }
    assert_eq!(versions.len(), 20);
    ledger.note_failovers(router.view().counts.failovers);
    Ok(())
}

fn network(seed: u64, ledger: &Ledger) -> Sim<'static> {
    let mut sim = Builder::new()
        .rng_seed(seed)
        .simulation_duration(Duration::from_mins(2))
        .tick_duration(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(1024)
        .build();
    for name in REPLICAS {
        let ledger = ledger.clone();
        sim.host(name, move || replica(ledger.clone()));
    }
    sim.client(ROUTER, drive(ledger.clone()));
    sim
}

/// Steps to the end, and does something at given times.
fn run(mut sim: Sim<'static>, mut act: impl FnMut(&mut Sim<'static>, u128)) {
    let mut millis = 0;
    while !sim.step().unwrap() {
        millis += 1;
        act(&mut sim, millis);
    }
}

#[test]
fn without_faults_every_item_is_computed_once() {
    let ledger = Ledger::default();
    run(network(1, &ledger), |_, _| {});
    assert_eq!((ledger.computed(), ledger.most(), ledger.failovers()), (90, 1, 0));
}

#[test]
fn a_replica_that_crashes_and_comes_back_loses_no_item() {
    let ledger = Ledger::default();
    run(network(2, &ledger), |sim, millis| match millis {
        1200 => sim.crash("r1"),
        2500 => sim.bounce("r1"),
        _ => {}
    });
    assert!(ledger.computed() >= 90 && ledger.failovers() > 0);
}

#[test]
fn a_replica_that_is_cut_off_loses_no_item() {
    let ledger = Ledger::default();
    run(network(3, &ledger), |sim, millis| match millis {
        1000 => sim.partition(ROUTER, "r0"),
        3500 => sim.repair(ROUTER, "r0"),
        _ => {}
    });
    assert!(ledger.failovers() > 0);
}

/// Answers that come after the item went elsewhere are told to nobody.
#[test]
fn a_replica_that_hangs_and_goes_on_loses_no_item_and_tells_none_twice() {
    let ledger = Ledger::default();
    run(network(4, &ledger), |sim, millis| match millis {
        1000 => sim.hold(ROUTER, "r2"),
        3000 => sim.release(ROUTER, "r2"),
        _ => {}
    });
    // What hung was computed there too, and is counted.
    assert!(ledger.most() == 2 && ledger.failovers() > 0);
}

/// Whatever happens, as long as one replica is left now and then.
#[test]
fn faults_in_any_order_lose_no_item() {
    for seed in 10..22 {
        let ledger = Ledger::default();
        let mut random = seed;
        let mut down = None;
        run(network(seed, &ledger), |sim, millis| {
            if millis % 700 != 0 || millis > 6000 {
                return;
            }
            random = splitmix(random);
            match down.take() {
                Some((name, 0)) => sim.bounce(name),
                Some((name, 1)) => sim.repair(ROUTER, name),
                Some((name, _)) => sim.release(ROUTER, name),
                None => {
                    let name = REPLICAS[(random % 3) as usize];
                    let what = (random >> 8) % 3;
                    match what {
                        0 => sim.crash(name),
                        1 => sim.partition(ROUTER, name),
                        _ => sim.hold(ROUTER, name),
                    }
                    down = Some((name, what));
                }
            }
        });
        assert!(ledger.failovers() > 0, "seed {seed}");
    }
}

const fn splitmix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
