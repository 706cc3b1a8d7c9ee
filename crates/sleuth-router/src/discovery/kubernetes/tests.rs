//! Against a scripted API server. Time is real here, for sockets do not pause.

use serde_json::{Value, json};
use tokio::sync::watch::Receiver;
use tokio_util::task::AbortOnDropHandle;

use super::stub::{Part, Reply, Stub};
use super::*;
use crate::discovery::{EndpointState, Membership, Scheme, ServicePort};

const QUICK: Patience = Patience {
    first_pause: Duration::from_millis(20),
    longest_pause: Duration::from_millis(200),
    sound: Duration::from_mins(1),
    watch: Duration::from_mins(1),
    silence: Duration::from_secs(75),
};

/// A slice with one ready pod for each last byte.
fn slice(name: &str, version: &str, lasts: impl IntoIterator<Item = u32>) -> Value {
    let pod = |last: u32| {
        json!({"addresses": [format!("10.0.{}.{}", last / 256, last % 256)],
               "conditions": {"ready": true, "serving": true, "terminating": false},
               "targetRef": {"kind": "Pod", "name": format!("p{last}"), "namespace": "ns"},
               "nodeName": "n", "zone": "z"})
    };
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": name, "namespace": "ns", "resourceVersion": version,
                     "labels": {"kubernetes.io/service-name": "sleuth"}},
        "endpoints": lasts.into_iter().map(pod).collect::<Vec<_>>(),
        "ports": [{"name": "grpc", "port": 50051, "protocol": "TCP"}],
    })
}

fn list(version: &'static str, lasts: impl IntoIterator<Item = u32>) -> Reply {
    Reply::List(version, vec![slice("s", version, lasts)], "")
}

struct Running {
    seen: Receiver<Membership>,
    stub: Stub,
    _task: AbortOnDropHandle<()>,
}

async fn start_with(patience: Patience, lists: Vec<Reply>, watches: Vec<Reply>) -> Running {
    let stub = Stub::start(lists, watches).await;
    let service = KubernetesSettings {
        namespace: "ns".to_owned(),
        service: "sleuth".to_owned(),
        port: ServicePort::Name("grpc".to_owned()),
        scheme: Scheme::Http,
        kubeconfig: Some(stub.kubeconfig()),
    };
    let (members, seen) = Members::new();
    let task = follow_with(service, DiscoverySettings::default(), patience, members);
    Running { seen, stub, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
}

async fn start(lists: Vec<Reply>, watches: Vec<Reply>) -> Running {
    start_with(QUICK, lists, watches).await
}

impl Running {
    /// Waits for a membership; fails with the last one.
    async fn until(&mut self, what: impl Fn(&Membership) -> bool) -> Membership {
        let waited =
            tokio::time::timeout(Duration::from_secs(20), self.seen.wait_for(|seen| what(seen)));
        if let Ok(seen) = waited.await {
            return seen.unwrap().clone();
        }
        panic!("{:?} after {:?}", self.seen.borrow(), self.stub.requests.lock().unwrap())
    }

    /// Waits for these pods and no fault.
    async fn sound(&mut self, names: &[&str]) {
        self.until(|seen| seen.fault.is_none() && seen.known && named(seen) == names).await;
    }

    /// Waits for a fault; the pods with it.
    async fn fault(&mut self, text: &str) -> Vec<String> {
        let has = |seen: &Membership| seen.fault.as_ref().is_some_and(|told| told.contains(text));
        named(&self.until(has).await)
    }
}

fn named(seen: &Membership) -> Vec<String> {
    seen.endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect()
}

#[tokio::test]
async fn slices_are_listed_by_page_then_watched() {
    let pages = vec![
        Reply::List("5", vec![slice("a", "3", [1])], "token"),
        Reply::List("5", vec![slice("b", "4", [2])], ""),
    ];
    let mut ending = slice("b", "7", [2]);
    ending["endpoints"][0]["conditions"] = json!({"ready": false, "terminating": true});
    let events = vec![
        Part::Wait(300),
        Part::Event("ADDED", slice("c", "6", [3])),
        Part::Wait(300),
        Part::Event("MODIFIED", ending),
        Part::Event(
            "BOOKMARK",
            json!({"kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1", "metadata": {"resourceVersion": "8"}}),
        ),
        Part::Wait(300),
        Part::Event("DELETED", slice("c", "9", [3])),
        Part::Stay,
    ];
    let mut running = start(pages, vec![Reply::Watch(events)]).await;
    running.sound(&["p1", "p2"]).await;
    running.sound(&["p1", "p2", "p3"]).await;
    let ends = |seen: &Membership| seen.endpoints[1].state == EndpointState::Terminating;
    running.until(ends).await;
    running.sound(&["p1", "p2"]).await;
    let requests = running.stub.requests.lock().unwrap().clone();
    let path = "/apis/discovery.k8s.io/v1/namespaces/ns/endpointslices?";
    assert!(requests.iter().all(|request| request.contains(path)), "{requests:?}");
    let label = "labelSelector=kubernetes.io%2Fservice-name%3Dsleuth";
    assert!(requests.iter().all(|request| request.contains(label)), "{requests:?}");
    assert!(requests[1].contains("continue=token"), "{requests:?}");
    let watch = &requests[2];
    assert!(watch.contains("resourceVersion=5") && watch.contains("allowWatchBookmarks=true"));
    assert!(watch.contains("timeoutSeconds=60"), "{watch}");
}

#[tokio::test]
async fn a_watch_that_ends_goes_on_where_it_was() {
    let bookmark = json!({"kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1",
                          "metadata": {"resourceVersion": "88"}});
    let first = vec![Part::Event("BOOKMARK", bookmark)];
    let second = vec![Part::Event("MODIFIED", slice("s", "90", [1, 2])), Part::Stay];
    let mut running =
        start(vec![list("5", [1])], vec![Reply::Watch(first), Reply::Watch(second)]).await;
    running.sound(&["p1", "p2"]).await;
    let requests = running.stub.requests.lock().unwrap().clone();
    assert_eq!((running.stub.count(false), running.stub.count(true)), (1, 2));
    assert!(requests[2].contains("resourceVersion=88"), "{requests:?}");
}

#[tokio::test]
async fn what_is_gone_is_listed_again() {
    let gone = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "code": 410,
        "status": "Failure", "message": "too old resource version: 5 (9)", "reason": "Expired"});
    let expired = Reply::Watch(vec![Part::Event("ERROR", gone)]);
    // The API server may refuse the watch itself with 410, too.
    let refused = Reply::Status(410, "too old resource version: 9 (12)");
    let lists = vec![list("5", [1]), list("9", [2]), list("12", [3])];
    let mut running = start(lists, vec![expired, refused]).await;
    running.sound(&["p3"]).await;
    assert_eq!(running.stub.count(false), 3);
}

#[tokio::test]
async fn an_api_server_that_fails_keeps_the_endpoints_and_is_told() {
    let faults: [(Reply, &str); 7] = [
        (Reply::Status(403, "endpointslices is forbidden: User x cannot"), "a Role must permit"),
        (Reply::Status(401, "Unauthorized"), "the credentials (401)"),
        (Reply::Status(500, "etcd is away"), "answers 500: etcd is away"),
        (Reply::Status(503, "starting"), "answers 503: starting"),
        (Reply::Text("<html>a portal</html>"), "expected value"),
        (Reply::Text("{\"kind\": \"EndpointSliceList\", \"items\": 5}"), "invalid type"),
        (Reply::Close, "connection closed"),
    ];
    for (reply, told) in faults {
        let broken =
            Reply::Watch(vec![Part::Wait(300), Part::Raw("{\"type\"".to_owned()), Part::Break]);
        let mut lists = vec![list("5", [1, 2])];
        lists.extend(vec![reply.clone(); 3]);
        lists.push(list("6", [3]));
        let watches = vec![broken, Reply::Status(500, "away")];
        let mut running = start(lists, watches).await;
        running.sound(&["p1", "p2"]).await;
        assert_eq!(running.fault(told).await, ["p1", "p2"], "{told}");
        running.sound(&["p3"]).await;
    }
}

#[tokio::test]
async fn garbage_in_a_watch_is_not_skipped_but_listed_again() {
    let mut wrong = slice("s", "6", [2]);
    wrong["endpoints"] = json!("none");
    let lines = [
        "garbage\n".to_owned(),
        "{\"type\":\"ADDED\"}\n".to_owned(),
        "{\"type\":\"UNKNOWN\",\"object\":{}}\n".to_owned(),
        "\u{0}\u{1}\n".to_owned(),
        format!("{}\n", json!({"type": "MODIFIED", "object": wrong})),
    ];
    for line in lines {
        let watch = Reply::Watch(vec![Part::Raw(line), Part::Stay]);
        let mut running = start(vec![list("5", [1]), list("7", [2])], vec![watch]).await;
        running.sound(&["p2"]).await;
        assert_eq!(running.stub.count(false), 2);
    }
}

#[tokio::test]
async fn an_event_in_pieces_is_one_event() {
    let line = json!({"type": "MODIFIED", "object": slice("s", "6", [1, 2])}).to_string() + "\n";
    let pieces = line
        .as_bytes()
        .chunks(40)
        .flat_map(|piece| [Part::Raw(String::from_utf8(piece.to_vec()).unwrap()), Part::Wait(5)]);
    let watch = Reply::Watch(pieces.chain([Part::Stay]).collect());
    let mut running = start(vec![list("5", [1])], vec![watch]).await;
    running.sound(&["p1", "p2"]).await;
}

#[tokio::test]
async fn a_watch_that_breaks_off_in_an_event_loses_nothing() {
    let event = json!({"type": "MODIFIED", "object": slice("s", "6", [1, 2])}).to_string();
    let half = event[..event.len() / 2].to_owned();
    let broken = Reply::Watch(vec![Part::Raw(half), Part::Break]);
    let whole = Reply::Watch(vec![Part::Raw(format!("{event}\n")), Part::Stay]);
    // Whether it is watched from where it was or listed again is not said here.
    let mut running = start(vec![list("5", [1]), list("5", [1])], vec![broken, whole]).await;
    running.sound(&["p1", "p2"]).await;
}

#[tokio::test]
async fn a_silent_api_server_is_told() {
    let short = Patience { silence: Duration::from_millis(300), ..QUICK };
    let lists = vec![list("5", [1]), Reply::Silence, list("6", [2])];
    let mut running = start_with(short, lists, vec![Reply::Silence]).await;
    assert_eq!(running.fault("timed out").await, ["p1"]);
    running.sound(&["p2"]).await;
}

#[tokio::test]
async fn where_watching_is_forbidden_the_fault_stays_and_the_endpoints_are_fresh() {
    let lists = (1..200).map(|last| list("5", [last])).collect();
    let watches = vec![Reply::Status(403, "no watch"); 200];
    let mut running = start(lists, watches).await;
    assert_eq!(running.fault("a Role must permit list and watch").await, ["p1"]);
    for _ in 0..3 {
        running.seen.changed().await.unwrap();
        let seen = running.seen.borrow_and_update().clone();
        assert!(seen.fault.is_some() && seen.endpoints.len() == 1, "{seen:?}");
    }
    // It is not asked as fast as it answers.
    sleep(Duration::from_secs(1)).await;
    assert!(running.stub.count(false) < 15, "{}", running.stub.count(false));
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_read_is_told_and_read_again() {
    let stub = Stub::start(vec![list("5", [1])], Vec::new()).await;
    let text = std::fs::read_to_string(stub.kubeconfig()).unwrap();
    std::fs::write(stub.kubeconfig(), "clusters: {").unwrap();
    let service = KubernetesSettings {
        namespace: "ns".to_owned(),
        service: "sleuth".to_owned(),
        port: ServicePort::Number(50051),
        scheme: Scheme::Http,
        kubeconfig: Some(stub.kubeconfig()),
    };
    let (members, seen) = Members::new();
    let task = follow_with(service, DiscoverySettings::default(), QUICK, members);
    let path = stub.kubeconfig();
    let task = AbortOnDropHandle::new(tokio::spawn(task));
    let mut running = Running { seen, stub, _task: task };
    running.fault(&path.display().to_string()).await;
    std::fs::write(&path, text).unwrap();
    running.sound(&["p1"]).await;
}

#[tokio::test]
async fn a_thousand_endpoints_come_at_once_and_their_changes_together() {
    let part = |version: &str, index: u32, more: u32| {
        let pods = index * 100..index * 100 + 99 + more;
        slice(&format!("s{index}"), version, pods)
    };
    let slices = (0..10).map(|index| part("5", index, 0)).collect();
    let mut events = Vec::new();
    for _ in 0..20 {
        events.extend((0..10).map(|index| Part::Event("MODIFIED", part("6", index, 0))));
    }
    events.extend((0..10).map(|index| Part::Event("MODIFIED", part("7", index, 1))));
    events.push(Part::Stay);
    let mut running = start(vec![Reply::List("5", slices, "")], vec![Reply::Watch(events)]).await;
    let mut sizes = Vec::new();
    while sizes.last() != Some(&1000) {
        running.seen.changed().await.unwrap();
        sizes.push(running.seen.borrow_and_update().endpoints.len());
    }
    assert!(sizes.len() <= 6, "{sizes:?}");
}

#[test]
fn pauses_double_to_a_bound_and_are_spread() {
    let patience = Patience::default();
    let millis = |failed, at| patience.pause(failed, at).as_millis();
    assert_eq!((millis(0, 0.0), millis(0, 1.0)), (250, 500));
    assert_eq!((millis(3, 1.0), millis(40, 1.0), millis(u32::MAX, 0.0)), (4000, 30_000, 15_000));
}
