//! Discovery against a real Kubernetes API server with etcd.
//!
//! Ignored unless asked for, since it needs `kube-apiserver` and `etcd`; `tests/kubernetes/build`
//! makes them of Debian's packages, and `tests/kubernetes/run` runs this.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::{Value, json};
use sleuth_router::discovery::{
    Discovery, DiscoverySettings, EndpointState, KubernetesSettings, Membership, Scheme,
    ServicePort, Source,
};
use tokio::time::Instant;

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: use tests/kubernetes/run"))
}

async fn slices() -> Api<EndpointSlice> {
    let file = Kubeconfig::read_from(variable("ADMIN_KUBECONFIG")).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(file, &options).await.unwrap();
    Api::namespaced(Client::try_from(config).unwrap(), "ns")
}

fn watch(service: &str, namespace: &str) -> Discovery {
    let settings = KubernetesSettings {
        namespace: namespace.to_owned(),
        service: service.to_owned(),
        port: ServicePort::Name("grpc".to_owned()),
        scheme: Scheme::Http,
        kubeconfig: Some(PathBuf::from(variable("ROUTER_KUBECONFIG"))),
    };
    Source::Kubernetes(settings).watch(DiscoverySettings::default())
}

fn slice(service: &str, name: &str, lasts: impl IntoIterator<Item = u32>) -> EndpointSlice {
    let pod = |last: u32| {
        json!({"addresses": [format!("10.1.{}.{}", last / 250, last % 250 + 1)], "zone": "z",
               "conditions": {"ready": true, "serving": true, "terminating": false},
               "targetRef": {"kind": "Pod", "name": format!("p{last:04}"), "namespace": "ns"}})
    };
    let pods: Vec<Value> = lasts.into_iter().map(pod).collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4", "endpoints": pods,
        "ports": [{"name": "grpc", "port": 50051, "protocol": "TCP"}],
    }))
    .unwrap()
}

async fn until(
    discovery: &Discovery,
    seconds: u64,
    what: impl Fn(&Membership) -> bool,
) -> Membership {
    let mut seen = discovery.membership();
    let waited =
        tokio::time::timeout(Duration::from_secs(seconds), seen.wait_for(|seen| what(seen))).await;
    if let Ok(seen) = waited {
        return seen.unwrap().clone();
    }
    panic!("{:?}", discovery.membership().borrow())
}

fn sound(count: usize) -> impl Fn(&Membership) -> bool {
    move |seen| seen.fault.is_none() && seen.endpoints.len() == count
}

fn faulty(text: &'static str) -> impl Fn(&Membership) -> bool {
    move |seen| seen.fault.as_ref().is_some_and(|fault| fault.contains(text))
}

async fn replace(slices: &Api<EndpointSlice>, name: &str, change: impl Fn(&mut EndpointSlice)) {
    let mut slice = slices.get(name).await.unwrap();
    change(&mut slice);
    slices.replace(name, &PostParams::default(), &slice).await.unwrap();
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: tests/kubernetes/run"]
async fn slices_come_change_and_go() {
    let (slices, create) = (slices().await, PostParams::default());
    let discovery = watch("changing", "ns");
    let none = until(&discovery, 10, faulty("has no EndpointSlices")).await;
    assert!(none.known && none.endpoints.is_empty());
    slices.create(&create, &slice("changing", "changing-a", [1, 2])).await.unwrap();
    slices.create(&create, &slice("another", "another-a", [9])).await.unwrap();
    let two = until(&discovery, 10, sound(2)).await;
    let first = &two.endpoints[0];
    assert_eq!((&*first.name, first.url.as_str()), ("p0001", "http://10.1.0.2:50051"));
    assert_eq!(first.zone.as_deref(), Some("z"));
    slices.create(&create, &slice("changing", "changing-b", [3])).await.unwrap();
    until(&discovery, 10, sound(3)).await;
    replace(&slices, "changing-a", |slice| {
        let conditions = slice.endpoints[0].conditions.get_or_insert_default();
        (conditions.ready, conditions.terminating) = (Some(false), Some(true));
        slice.endpoints[1].conditions.get_or_insert_default().ready = Some(false);
    })
    .await;
    let seen = until(&discovery, 10, sound(2)).await;
    assert_eq!(seen.endpoints[0].state, EndpointState::Terminating);
    slices.delete("changing-b", &DeleteParams::default()).await.unwrap();
    until(&discovery, 10, sound(1)).await;
    slices.delete("changing-a", &DeleteParams::default()).await.unwrap();
    until(&discovery, 10, faulty("has no EndpointSlices")).await;
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: tests/kubernetes/run"]
async fn what_is_not_permitted_is_told() {
    let discovery = watch("any", "default");
    let seen = until(&discovery, 10, faulty("a Role must permit list and watch")).await;
    assert!(!seen.known);
    println!("{}", seen.fault.unwrap());
}

#[tokio::test]
#[ignore = "needs a Kubernetes API server: tests/kubernetes/run"]
async fn a_thousand_endpoints_come_and_change_together() {
    let (slices, create) = (slices().await, PostParams::default());
    for index in 0..10 {
        let name = format!("many-{index}");
        let pods = index * 100..(index + 1) * 100;
        slices.create(&create, &slice("many", &name, pods)).await.unwrap();
    }
    let start = Instant::now();
    let discovery = watch("many", "ns");
    until(&discovery, 10, sound(1000)).await;
    println!("1,000 endpoints after {:?}", start.elapsed());
    let mut seen = discovery.membership();
    seen.mark_unchanged();
    for index in 0..10 {
        replace(&slices, &format!("many-{index}"), |slice| drop(slice.endpoints.pop())).await;
    }
    let mut published = 0;
    while seen.borrow().endpoints.len() != 990 {
        seen.changed().await.unwrap();
        published += 1;
        drop(seen.borrow_and_update());
    }
    println!("10 changes were published {published} times");
    assert!(published < 10);
}

/// Ends the API server and starts it again, so it runs alone.
#[tokio::test]
#[ignore = "needs a Kubernetes API server: tests/kubernetes/run"]
async fn zz_an_api_server_that_is_away_keeps_the_endpoints_and_is_told() {
    let slices = slices().await;
    slices.create(&PostParams::default(), &slice("away", "away-a", [1, 2])).await.unwrap();
    let discovery = watch("away", "ns");
    until(&discovery, 10, sound(2)).await;
    for kill in ["-TERM", "-KILL"] {
        let pid = std::fs::read_to_string(variable("API_PID")).unwrap();
        assert!(Command::new("kill").args([kill, pid.trim()]).status().unwrap().success());
        let seen = until(&discovery, 90, |seen| seen.fault.is_some()).await;
        println!("after {kill}: {}", seen.fault.unwrap());
        assert_eq!(seen.endpoints.len(), 2);
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(discovery.membership().borrow().endpoints.len(), 2);
        assert!(Command::new(variable("API_START")).status().unwrap().success());
        until(&discovery, 60, sound(2)).await;
    }
    // Another client, for the old one may hold a dead connection.
    let slices = self::slices().await;
    replace(&slices, "away-a", |slice| drop(slice.endpoints.pop())).await;
    until(&discovery, 20, sound(1)).await;
}

/// Freezes the API server: its sockets stay open and nothing answers.
#[tokio::test]
#[ignore = "needs a Kubernetes API server: tests/kubernetes/run"]
async fn zz_an_api_server_that_is_frozen_is_told() {
    let slices = slices().await;
    slices.create(&PostParams::default(), &slice("frozen", "frozen-a", [1])).await.unwrap();
    let discovery = watch("frozen", "ns");
    until(&discovery, 10, sound(1)).await;
    let pid = std::fs::read_to_string(variable("API_PID")).unwrap();
    let signal = |signal: &str| {
        assert!(Command::new("kill").args([signal, pid.trim()]).status().unwrap().success());
    };
    signal("-STOP");
    let start = Instant::now();
    let seen = until(&discovery, 160, |seen| seen.fault.is_some()).await;
    signal("-CONT");
    println!("after {:?}: {}", start.elapsed(), seen.fault.unwrap());
    assert_eq!(seen.endpoints.len(), 1);
    until(&discovery, 90, sound(1)).await;
}
