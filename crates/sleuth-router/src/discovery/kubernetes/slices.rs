//! Replicas out of EndpointSlices.
//!
//! What the fields mean is told in the Kubernetes documentation, "EndpointSlices" and the API
//! reference of discovery.k8s.io/v1: `ready` that is not told means ready, one endpoint may stand
//! in several slices for a while, a dual-stack Service has a slice of each kind of address, and
//! only the first address of an endpoint counts.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{
    Endpoint as SliceEndpoint, EndpointConditions, EndpointPort, EndpointSlice,
};

use crate::discovery::{Endpoint, EndpointState, KubernetesSettings, ServicePort};

/// The slices of one Service, by name.
#[derive(Debug, Default)]
pub(super) struct Slices(HashMap<String, Slice>);

/// What is needed of a slice.
#[derive(Debug)]
struct Slice {
    candidates: Vec<Candidate>,
    /// The names and numbers of its ports, where the wanted one is not among them.
    other_ports: Option<Vec<String>>,
}

/// An endpoint as one slice tells it.
#[derive(Clone, Debug)]
struct Candidate {
    ip: IpAddr,
    endpoint: Endpoint,
}

// === impl Slices ===

impl Slices {
    pub(super) fn insert(&mut self, slice: &EndpointSlice, settings: &KubernetesSettings) {
        let name = slice.metadata.name.clone().unwrap_or_default();
        self.0.insert(name, Slice::read(slice, settings));
    }

    pub(super) fn remove(&mut self, slice: &EndpointSlice) {
        if let Some(name) = &slice.metadata.name {
            self.0.remove(name);
        }
    }

    /// Each pod once, in no order.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = Endpoint> {
        let mut best: HashMap<&str, &Candidate> = HashMap::new();
        for candidate in self.0.values().flat_map(|slice| &slice.candidates) {
            match best.entry(&candidate.endpoint.name) {
                Entry::Vacant(new) => drop(new.insert(candidate)),
                Entry::Occupied(mut known) if candidate.rank() < known.get().rank() => {
                    known.insert(candidate);
                }
                Entry::Occupied(_) => {}
            }
        }
        best.into_values().map(|candidate| candidate.endpoint.clone())
    }

    /// What is wrong with the Service as a whole, though it could be read.
    pub(super) fn fault(&self, settings: &KubernetesSettings) -> Option<String> {
        let KubernetesSettings { namespace, service, port, .. } = settings;
        if self.0.is_empty() {
            return Some(format!(
                "{namespace}/{service} has no EndpointSlices: is there a Service of this name, \
                 with a selector?"
            ));
        }
        if self.0.values().any(|slice| slice.other_ports.is_none()) {
            return None;
        }
        let ports: BTreeSet<_> =
            self.0.values().filter_map(|slice| slice.other_ports.as_ref()).flatten().collect();
        let ports: Vec<_> = ports.into_iter().take(8).map(String::as_str).collect();
        let (wanted, has) = (port.told(), ports.join(", "));
        Some(format!("{namespace}/{service} has no port {wanted}; its pods have {has}"))
    }
}

// === impl Slice ===

impl Slice {
    fn read(slice: &EndpointSlice, settings: &KubernetesSettings) -> Self {
        let ports = slice.ports.as_deref().unwrap_or_default();
        let mut read = Self { candidates: Vec::new(), other_ports: None };
        // A Service that selects nothing yet has an empty slice without ports.
        if slice.endpoints.is_empty() {
            return read;
        }
        let Some(port) = settings.port.find(ports) else {
            read.other_ports = Some(ports.iter().map(told).collect());
            return read;
        };
        read.candidates = slice
            .endpoints
            .iter()
            .filter_map(|endpoint| Candidate::read(endpoint, port, settings))
            .collect();
        read
    }
}

/// A port as it is told in a fault.
fn told(port: &EndpointPort) -> String {
    let number = port.port.map_or_else(|| "any".to_owned(), |number| number.to_string());
    match port.name.as_deref() {
        None | Some("") => number,
        Some(name) => format!("{name} ({number})"),
    }
}

// === impl Candidate ===

impl Candidate {
    /// `None` for what is not ready, or has an address that is none: a host name (`FQDN` slices
    /// are deprecated).
    fn read(endpoint: &SliceEndpoint, port: u16, settings: &KubernetesSettings) -> Option<Self> {
        let state = state(endpoint.conditions.as_ref())?;
        let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
        let mut read = Endpoint::at(settings.scheme, SocketAddr::new(ip, port));
        read.state = state;
        read.zone = endpoint.zone.as_deref().filter(|zone| !zone.is_empty()).map(Arc::from);
        let pod = endpoint.target_ref.as_ref().filter(|to| to.kind.as_deref() == Some("Pod"));
        if let Some(name) = pod.and_then(|pod| pod.name.as_deref()).filter(|name| !name.is_empty())
        {
            read.name = Arc::from(name);
        }
        Some(Self { ip, endpoint: read })
    }

    /// Of two for one pod the lesser is taken: IPv4, then ready, then whichever every router
    /// would take.
    fn rank(&self) -> (bool, bool, IpAddr, &str) {
        let terminating = self.endpoint.state == EndpointState::Terminating;
        (self.ip.is_ipv6(), terminating, self.ip, &self.endpoint.url)
    }
}

/// `None` for what takes no work and has none. A pod that terminates may have work whether it
/// still says that it serves or not, so it is kept until it is gone.
fn state(conditions: Option<&EndpointConditions>) -> Option<EndpointState> {
    let Some(conditions) = conditions else { return Some(EndpointState::Ready) };
    if conditions.terminating == Some(true) {
        return Some(EndpointState::Terminating);
    }
    let ready = conditions.ready.or(conditions.serving).unwrap_or(true);
    ready.then_some(EndpointState::Ready)
}

// === impl ServicePort ===

impl ServicePort {
    fn find(&self, ports: &[EndpointPort]) -> Option<u16> {
        let tcp = |port: &&EndpointPort| port.protocol.as_deref().unwrap_or("TCP") == "TCP";
        let number = |port: &EndpointPort| port.port.and_then(|number| u16::try_from(number).ok());
        let mut ports_of_tcp = ports.iter().filter(tcp);
        match self {
            Self::Name(name) => {
                ports_of_tcp.find(|port| port.name.as_ref() == Some(name)).and_then(number)
            }
            // A headless Service need not list its ports; a port without a number is any.
            Self::Number(wanted) => (ports.is_empty()
                || ports_of_tcp.any(|port| port.port.is_none() || number(port) == Some(*wanted)))
            .then_some(*wanted),
        }
    }

    fn told(&self) -> String {
        match self {
            Self::Name(name) => format!("named {name:?}"),
            Self::Number(number) => number.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::discovery::Scheme;

    fn settings(port: ServicePort) -> KubernetesSettings {
        KubernetesSettings {
            namespace: "ns".to_owned(),
            service: "sleuth".to_owned(),
            port,
            scheme: Scheme::Http,
            kubeconfig: None,
        }
    }

    fn grpc() -> ServicePort {
        ServicePort::Name("grpc".to_owned())
    }

    fn slice(name: &str, endpoints: &Value) -> Value {
        let ports = json!([{"name": "metrics", "port": 9090, "protocol": "TCP"},
                           {"name": "grpc", "port": 50051, "protocol": "TCP"}]);
        let metadata = json!({"name": name});
        json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints})
    }

    fn pod(name: &str, address: &str, conditions: &Value) -> Value {
        json!({"addresses": [address], "conditions": conditions, "zone": "z1",
               "targetRef": {"kind": "Pod", "name": name}})
    }

    fn read(slices: &[Value], port: ServicePort) -> (Vec<String>, Option<String>) {
        let settings = settings(port);
        let mut known = Slices::default();
        for slice in slices {
            known.insert(&serde_json::from_value(slice.clone()).unwrap(), &settings);
        }
        let told = |e: Endpoint| {
            let state = if e.state == EndpointState::Ready { "" } else { " ends" };
            format!("{} {} {}{state}", e.name, e.url, e.zone.as_deref().unwrap_or("-"))
        };
        let mut endpoints: Vec<_> = known.endpoints().map(told).collect();
        endpoints.sort();
        (endpoints, known.fault(&settings))
    }

    #[test]
    fn conditions_say_who_is_there() {
        let ended = json!({"ready": false, "serving": false, "terminating": true});
        let ending = json!({"ready": false, "serving": true, "terminating": true});
        let pods = json!([
            pod("a", "10.0.0.1", &json!({"ready": true})),
            pod("b", "10.0.0.2", &json!({"ready": false, "serving": false})),
            pod("c", "10.0.0.3", &json!({})),
            pod("d", "10.0.0.4", &ending),
            pod("e", "10.0.0.5", &ended),
            pod("f", "10.0.0.6", &json!({"serving": false})),
            {"addresses": ["10.0.0.7"]},
            pod("h", "example.org", &json!({})),
            {"addresses": []},
        ]);
        let wanted = [
            "10.0.0.7:50051 http://10.0.0.7:50051 -",
            "a http://10.0.0.1:50051 z1",
            "c http://10.0.0.3:50051 z1",
            "d http://10.0.0.4:50051 z1 ends",
            "e http://10.0.0.5:50051 z1 ends",
        ];
        assert_eq!(read(&[slice("s", &pods)], grpc()), (wanted.map(str::to_owned).into(), None));
    }

    #[test]
    fn a_pod_in_several_slices_is_one_endpoint() {
        let ready = || json!({"ready": true});
        let ending = json!({"ready": false, "terminating": true});
        let mut six =
            slice("six", &json!([pod("a", "fd00::1", &ready()), pod("b", "fd00::2", &ready())]));
        six["addressType"] = json!("IPv6");
        let four = slice("four", &json!([pod("a", "10.0.0.1", &ready())]));
        let moved = slice("moved", &json!([pod("a", "10.0.0.1", &ending)]));
        let wanted = ["a http://10.0.0.1:50051 z1", "b http://[fd00::2]:50051 z1"];
        let wanted = (wanted.map(str::to_owned).to_vec(), None);
        assert_eq!(read(&[six.clone(), four.clone(), moved.clone()], grpc()), wanted);
        assert_eq!(read(&[moved, four, six], grpc()), wanted);
    }

    #[test]
    fn ports_are_found_by_name_or_number_and_missing_ones_told() {
        let pods = || json!([pod("a", "10.0.0.1", &json!({}))]);
        let at = |port: u16| vec![format!("a http://10.0.0.1:{port} z1")];
        assert_eq!(read(&[slice("s", &pods())], ServicePort::Number(9090)), (at(9090), None));
        let (none, fault) = read(&[slice("s", &pods())], ServicePort::Number(80));
        let wanted = "ns/sleuth has no port 80; its pods have grpc (50051), metrics (9090)";
        assert_eq!((none.len(), fault.as_deref()), (0, Some(wanted)));
        let (_, fault) = read(&[slice("s", &pods())], ServicePort::Name("http".to_owned()));
        assert!(fault.unwrap().contains("no port named \"http\""));
        let mut bare = slice("s", &pods());
        bare["ports"] = json!([]);
        assert_eq!(read(&[bare.clone()], ServicePort::Number(80)), (at(80), None));
        bare["ports"] = json!([{"name": "grpc", "port": 70000}]);
        assert_eq!(read(&[bare.clone()], grpc()).0.len(), 0);
        bare["ports"] = json!([{"name": "grpc", "port": 1, "protocol": "UDP"}]);
        assert_eq!(read(&[bare], grpc()).0.len(), 0);
    }

    #[test]
    fn no_service_is_told_and_no_pods_are_no_fault() {
        assert!(read(&[], grpc()).1.unwrap().contains("is there a Service"));
        let empty = json!({"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": []});
        assert_eq!(read(&[empty], grpc()), (Vec::new(), None));
    }
}
