//! An API server that answers by a script: the requests and answers of the Kubernetes API
//! reference ("API concepts", list and watch), over HTTP/1.1 with chunks.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Answers requests, lists and watches apart, each in the order of its script. Past its end a
/// list is empty, with status 500, and a watch stays silent.
pub(super) struct Stub {
    pub(super) requests: Arc<Mutex<Vec<String>>>,
    folder: tempfile::TempDir,
    _task: AbortOnDropHandle<()>,
}

/// What is answered.
#[derive(Clone)]
pub(super) enum Reply {
    /// An error, as a `Status` object.
    Status(u16, &'static str),
    /// Any text with status 200.
    Text(&'static str),
    /// An EndpointSliceList: resource version, items, token of the next page.
    List(&'static str, Vec<Value>, &'static str),
    /// A watch.
    Watch(Vec<Part>),
    /// The connection is closed without an answer.
    Close,
    /// Nothing, for ever.
    Silence,
}

/// A piece of a watch.
#[derive(Clone)]
pub(super) enum Part {
    /// An event.
    Event(&'static str, Value),
    /// Bytes as they are, without an end of line.
    Raw(String),
    /// A pause, in milliseconds.
    Wait(u64),
    /// The connection breaks off here. Without this the watch ends as it should.
    Break,
    /// The watch stays open.
    Stay,
}

struct Script {
    lists: VecDeque<Reply>,
    watches: VecDeque<Reply>,
}

// === impl Stub ===

impl Stub {
    pub(super) async fn start(lists: Vec<Reply>, watches: Vec<Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Script { lists: lists.into(), watches: watches.into() };
        let script = Arc::new(Mutex::new(script));
        let requests = Arc::default();
        let task = serve(listener, script, Arc::clone(&requests));
        let folder = tempfile::tempdir().unwrap();
        let named = |key: &str, value: Value| json!([{"name": "x", key: value}]);
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "x",
            "clusters": named("cluster", json!({"server": format!("http://{address}")})),
            "users": named("user", json!({"token": "secret"})),
            "contexts": named("context", json!({"cluster": "x", "user": "x"})),
        });
        std::fs::write(folder.path().join("config"), config.to_string()).unwrap();
        Self { requests, folder, _task: AbortOnDropHandle::new(tokio::spawn(task)) }
    }

    pub(super) fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("config")
    }

    /// Requests so far that begin a watch, or a list.
    pub(super) fn count(&self, watch: bool) -> usize {
        let requests = self.requests.lock().unwrap();
        requests.iter().filter(|request| request.contains("watch=true") == watch).count()
    }
}

async fn serve(
    listener: TcpListener,
    script: Arc<Mutex<Script>>,
    requests: Arc<Mutex<Vec<String>>>,
) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(answer(stream, Arc::clone(&script), Arc::clone(&requests)));
    }
}

/// Answers the requests of one connection; what goes wrong ends it.
async fn answer(
    mut stream: TcpStream,
    script: Arc<Mutex<Script>>,
    requests: Arc<Mutex<Vec<String>>>,
) -> Option<()> {
    loop {
        let request = head(&mut stream).await?;
        let reply = {
            let mut script = script.lock().unwrap();
            if request.contains("watch=true") {
                script.watches.pop_front().unwrap_or(Reply::Silence)
            } else {
                script.lists.pop_front().unwrap_or(Reply::Status(500, "the script is over"))
            }
        };
        requests.lock().unwrap().push(request);
        match reply {
            Reply::Status(code, message) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                    "status": "Failure", "message": message, "reason": "x", "code": code});
                whole(&mut stream, code, &status.to_string()).await?;
            }
            Reply::Text(text) => whole(&mut stream, 200, text).await?,
            Reply::List(version, items, next) => {
                let metadata = json!({"resourceVersion": version, "continue": next});
                let list = json!({"kind": "EndpointSliceList", "metadata": metadata,
                    "apiVersion": "discovery.k8s.io/v1", "items": items});
                whole(&mut stream, 200, &list.to_string()).await?;
            }
            Reply::Watch(parts) => watch(&mut stream, parts).await?,
            Reply::Close => return None,
            Reply::Silence => std::future::pending().await,
        }
    }
}

async fn head(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    while !read.ends_with(b"\r\n\r\n") {
        read.push(stream.read_u8().await.ok()?);
    }
    let text = String::from_utf8(read).ok()?;
    assert!(text.to_lowercase().contains("authorization: bearer secret"), "{text}");
    text.lines().next().map(str::to_owned)
}

async fn whole(stream: &mut TcpStream, code: u16, body: &str) -> Option<()> {
    let head = format!("HTTP/1.1 {code} x\r\ncontent-type: application/json\r\n");
    let text = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).await.ok()
}

async fn watch(stream: &mut TcpStream, parts: Vec<Part>) -> Option<()> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    for part in parts {
        match part {
            Part::Event(kind, object) => {
                let event = json!({"type": kind, "object": object});
                chunk(stream, &format!("{event}\n")).await?;
            }
            Part::Raw(text) => chunk(stream, &text).await?,
            Part::Wait(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
            Part::Break => return None,
            Part::Stay => std::future::pending().await,
        }
    }
    stream.write_all(b"0\r\n\r\n").await.ok()
}

async fn chunk(stream: &mut TcpStream, text: &str) -> Option<()> {
    let chunk = format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(chunk.as_bytes()).await.ok()
}
