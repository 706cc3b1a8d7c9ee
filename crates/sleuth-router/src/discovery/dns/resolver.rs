//! Asks real name servers.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ProtocolConfig, ResolverConfig, ServerOrderingStrategy,
};
use hickory_resolver::lookup::Lookup;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};
use hickory_resolver::{Resolver, TokioResolver};

use super::{Answer, Resolve};

/// How long one server has for one attempt.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(2);

/// The system's name servers, or given ones.
pub(super) struct SystemResolver {
    servers: Vec<SocketAddr>,
    /// Made at the first look, and again after one that failed: the system's settings may have
    /// changed.
    resolver: Option<TokioResolver>,
}

// === impl SystemResolver ===

impl SystemResolver {
    /// With no servers, the system's are asked.
    pub(super) fn new(servers: Vec<SocketAddr>) -> Self {
        Self { servers, resolver: None }
    }

    fn open(&self) -> Result<TokioResolver, NetError> {
        let mut builder = if self.servers.is_empty() {
            TokioResolver::builder_tokio()?
        } else {
            let servers = self.servers.iter().copied().map(server).collect();
            let config = ResolverConfig::from_name_servers(servers);
            Resolver::builder_with_config(config, TokioRuntimeProvider::default())
        };
        let options = builder.options_mut();
        // Whoever looks keeps to the TTL; a cache would answer the look that comes early.
        options.cache_size = 0;
        options.timeout = ATTEMPT_TIMEOUT;
        // Tries again, after the first.
        options.attempts = 1;
        // A thousand addresses do not fit into a datagram.
        options.try_tcp_on_error = true;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        builder.build()
    }
}

impl Resolve for SystemResolver {
    async fn resolve(&mut self, host: &str) -> Result<Answer, String> {
        let resolver = match self.resolver.take() {
            Some(resolver) => resolver,
            None => self.open().map_err(|error| format!("no resolver: {error}"))?,
        };
        let answer = ask(&resolver, host).await?;
        self.resolver = Some(resolver);
        Ok(answer)
    }
}

async fn ask(resolver: &TokioResolver, host: &str) -> Result<Answer, String> {
    match resolver.lookup(host, RecordType::A).await {
        Ok(lookup) => answer(&lookup).ok_or_else(|| "no addresses".to_owned()),
        // Whatever the code is: with a search list it is that of the last name that was tried.
        Err(error) if error.is_no_records_found() => {
            let lookup = resolver.lookup(host, RecordType::AAAA).await.map_err(|e| tell(&e))?;
            answer(&lookup).ok_or_else(|| "no addresses".to_owned())
        }
        Err(error) => Err(tell(&error)),
    }
}

fn answer(lookup: &Lookup) -> Option<Answer> {
    let ttl = lookup.answers().iter().map(|record| record.ttl).min()?;
    let address = |data: &RData| match data {
        RData::A(ip) => Some(IpAddr::V4(ip.0)),
        RData::AAAA(ip) => Some(IpAddr::V6(ip.0)),
        _ => None,
    };
    let addresses: Vec<_> = lookup.answers().iter().filter_map(|r| address(&r.data)).collect();
    let ttl = Duration::from_secs(ttl.into());
    (!addresses.is_empty()).then_some(Answer { addresses, ttl })
}

/// An error in the words that people who run DNS know.
fn tell(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => match none.response_code {
            ResponseCode::NXDomain => "the name does not exist (NXDOMAIN)".to_owned(),
            ResponseCode::NoError => "the name has no addresses".to_owned(),
            code => format!("the name server answers {code}"),
        },
        NetError::Dns(DnsError::ResponseCode(code)) => format!("the name server answers {code}"),
        NetError::Timeout => "the name servers do not answer".to_owned(),
        other => other.to_string(),
    }
}

fn server(address: SocketAddr) -> NameServerConfig {
    let connection = |protocol| {
        let mut connection = ConnectionConfig::new(protocol);
        connection.port = address.port();
        connection
    };
    let connections = vec![connection(ProtocolConfig::Udp), connection(ProtocolConfig::Tcp)];
    NameServerConfig::new(address.ip(), true, connections)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU16, Ordering};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, UdpSocket};
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    /// What the server answers, by the first label of the name.
    const NXDOMAIN: u8 = 3;
    const SERVFAIL: u8 = 2;

    /// A name server written from RFC 1035: one question, its answers, nothing else.
    struct Server {
        address: SocketAddr,
        queries: Arc<AtomicU16>,
        _tasks: [AbortOnDropHandle<()>; 2],
    }

    impl Server {
        async fn start() -> Self {
            let (udp, tcp) = loop {
                let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
                // The same port need not be free for both.
                if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()).await {
                    break (udp, tcp);
                }
            };
            let (address, queries) = (tcp.local_addr().unwrap(), Arc::new(AtomicU16::new(0)));
            let counted = Arc::clone(&queries);
            let datagrams = tokio::spawn(async move {
                let mut query = [0; 1500];
                loop {
                    let (bytes, from) = udp.recv_from(&mut query).await.unwrap();
                    counted.fetch_add(1, Ordering::SeqCst);
                    if let Some(reply) = reply(&query[..bytes], 1200) {
                        udp.send_to(&reply, from).await.unwrap();
                    }
                }
            });
            let streams = tokio::spawn(async move {
                loop {
                    let (mut stream, _) = tcp.accept().await.unwrap();
                    let mut query = vec![0; usize::from(stream.read_u16().await.unwrap())];
                    stream.read_exact(&mut query).await.unwrap();
                    let reply = reply(&query, usize::from(u16::MAX)).unwrap();
                    stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
                    stream.write_all(&reply).await.unwrap();
                }
            });
            let tasks = [datagrams, streams].map(AbortOnDropHandle::new);
            Self { address, queries, _tasks: tasks }
        }
    }

    /// `None` where nothing is answered.
    fn reply(query: &[u8], room: usize) -> Option<Vec<u8>> {
        let mut at = 12;
        let mut labels = Vec::new();
        while query[at] != 0 {
            let end = at + 1 + usize::from(query[at]);
            labels.push(String::from_utf8(query[at + 1..end].to_ascii_lowercase()).unwrap());
            at = end;
        }
        let kind = u16::from_be_bytes([query[at + 1], query[at + 2]]);
        let question = &query[12..at + 5];
        let (code, answers) = match (labels[0].as_str(), kind) {
            ("silent", _) => return None,
            ("broken", _) => (SERVFAIL, Vec::new()),
            ("four" | "both", 1) => (0, vec![(60, vec![10, 0, 0, 1]), (7, vec![10, 0, 0, 2])]),
            ("six" | "both", 28) => (0, vec![(9, [0xfd; 16].to_vec())]),
            ("six" | "empty" | "four", _) => (0, Vec::new()),
            ("many", 1) => {
                (0, (0..1000_u16).map(|i| (5, [[10, 1], i.to_be_bytes()].concat())).collect())
            }
            _ => (NXDOMAIN, Vec::new()),
        };
        let mut reply = query[..2].to_vec();
        let truncated = 12 + question.len() + answers.len() * 28 > room;
        let sent = if truncated { &[][..] } else { &answers[..] };
        reply.extend([0x81 | u8::from(truncated) << 1, 0x80 | code, 0, 1]);
        reply.extend(u16::try_from(sent.len()).unwrap().to_be_bytes());
        reply.extend([0; 4]);
        reply.extend(question);
        for (ttl, data) in sent {
            // The name is that of the question.
            reply.extend([0xc0, 12]);
            reply.extend([kind.to_be_bytes(), 1_u16.to_be_bytes()].concat());
            reply.extend(u32::to_be_bytes(*ttl));
            reply.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            reply.extend(data);
        }
        Some(reply)
    }

    fn addresses(answer: &Answer) -> Vec<String> {
        let mut addresses: Vec<_> = answer.addresses.iter().map(IpAddr::to_string).collect();
        addresses.sort();
        addresses
    }

    #[tokio::test]
    async fn a_server_gives_addresses_of_one_kind_with_the_least_time_to_live() {
        let server = Server::start().await;
        let mut resolver = SystemResolver::new(vec![server.address]);
        for name in ["four.ns.svc.", "both.ns.svc."] {
            let answer = resolver.resolve(name).await.unwrap();
            assert_eq!(addresses(&answer), ["10.0.0.1", "10.0.0.2"]);
            assert_eq!(answer.ttl, Duration::from_secs(7));
        }
        let answer = resolver.resolve("six.ns.svc.").await.unwrap();
        assert_eq!((answer.addresses[0].is_ipv6(), answer.ttl), (true, Duration::from_secs(9)));
    }

    #[tokio::test]
    async fn every_look_asks_the_server() {
        let server = Server::start().await;
        let mut resolver = SystemResolver::new(vec![server.address]);
        for asked in 1..4 {
            resolver.resolve("four.ns.svc.").await.unwrap();
            assert_eq!(server.queries.load(Ordering::SeqCst), asked);
        }
    }

    #[tokio::test]
    async fn a_thousand_addresses_come_over_tcp() {
        let server = Server::start().await;
        let mut resolver = SystemResolver::new(vec![server.address]);
        let answer = resolver.resolve("many.ns.svc.").await.unwrap();
        assert_eq!((answer.addresses.len(), answer.ttl), (1000, Duration::from_secs(5)));
    }

    #[tokio::test]
    async fn what_a_server_refuses_is_told_and_the_next_look_is_good() {
        let server = Server::start().await;
        let mut resolver = SystemResolver::new(vec![server.address]);
        let faults = [
            ("none.ns.svc.", "NXDOMAIN"),
            ("empty.ns.svc.", "has no addresses"),
            ("broken.ns.svc.", "answers Server Failure"),
            ("silent.ns.svc.", "not answer"),
        ];
        for (name, wanted) in faults {
            let fault = resolver.resolve(name).await.unwrap_err();
            assert!(fault.contains(wanted), "{name}: {fault}");
            assert_eq!(resolver.resolve("four.ns.svc.").await.unwrap().addresses.len(), 2);
        }
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_told() {
        let address = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let fault = SystemResolver::new(vec![address]).resolve("four.ns.svc.").await.unwrap_err();
        assert!(!fault.is_empty(), "{fault}");
    }
}
