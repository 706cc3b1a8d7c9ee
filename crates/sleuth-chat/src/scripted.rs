//! A chat endpoint that answers by a script, on a local port. For tests; it also misbehaves.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longest request it reads.
const MOST_BYTES: usize = 1 << 20;

/// What one request is answered with.
#[derive(Clone, Debug)]
pub enum Answer {
    /// A completion with this text; it costs 10 tokens read and 5 written.
    Text(String),
    /// A completion that stopped at the limit of tokens.
    Cut(String),
    /// A status, and a `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// Success with this body, whatever it is.
    Body(String),
    /// The connection is closed without an answer.
    Drop,
    /// Half of an answer, then the connection is closed.
    Half,
    /// A body that never ends.
    Endless,
    /// Nothing, for so long.
    Silence(Duration),
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The `authorization` header.
    pub authorization: Option<String>,
    /// The JSON body.
    pub body: Value,
}

/// A running endpoint; it ends when dropped.
#[derive(Debug)]
pub struct Scripted {
    /// Its base address.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

type Script = dyn FnMut(&Asked) -> Answer + Send;

// === impl Asked ===

impl Asked {
    /// The content of message `index`.
    pub fn message(&self, index: usize) -> &str {
        self.body["messages"][index]["content"].as_str().unwrap_or_default()
    }
}

// === impl Scripted ===

impl Scripted {
    /// Listens on a free local port; `script` says what each request is answered with.
    pub async fn start(script: impl FnMut(&Asked) -> Answer + Send + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/v1", listener.local_addr()?);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let script: Arc<Mutex<Script>> = Arc::new(Mutex::new(script));
        let seen = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that breaks is the client's to notice.
                tokio::spawn(serve(stream, Arc::clone(&script), Arc::clone(&seen)));
            }
        });
        Ok(Self { url, asked, task })
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    script: Arc<Mutex<Script>>,
    seen: Arc<Mutex<Vec<Asked>>>,
) -> io::Result<()> {
    while let Some(asked) = read(&mut stream).await? {
        let answer = {
            seen.lock().unwrap_or_else(PoisonError::into_inner).push(asked.clone());
            let mut script = script.lock().unwrap_or_else(PoisonError::into_inner);
            script(&asked)
        };
        if !write(&mut stream, answer).await? {
            break;
        }
    }
    Ok(())
}

/// The next request; `None` at the end of the connection.
async fn read(stream: &mut TcpStream) -> io::Result<Option<Asked>> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let header = |name: &str| {
                head.lines()
                    .filter_map(|line| line.split_once(": "))
                    .find(|(n, _)| n.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.to_owned())
            };
            let length: usize =
                header("content-length").and_then(|l| l.parse().ok()).unwrap_or_default();
            if let Some(body) = bytes.get(end + 4..end + 4 + length) {
                let body = serde_json::from_slice(body).unwrap_or(Value::Null);
                return Ok(Some(Asked { authorization: header("authorization"), body }));
            }
        }
        let mut chunk = [0; 8192];
        let read = stream.read(&mut chunk).await?;
        if read == 0 || bytes.len() > MOST_BYTES {
            return Ok(None);
        }
        bytes.extend_from_slice(&chunk[..read]);
    }
}

/// Writes an answer; false where the connection ends with it.
async fn write(stream: &mut TcpStream, answer: Answer) -> io::Result<bool> {
    let completion = |text: &str, reason: &str| {
        json!({
            "choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        })
        .to_string()
    };
    let whole = |status: &str, more: &str, body: &str| {
        format!("HTTP/1.1 {status}\r\n{more}content-length: {}\r\n\r\n{body}", body.len())
    };
    let text = match answer {
        Answer::Text(text) => whole("200 OK", "", &completion(&text, "stop")),
        Answer::Cut(text) => whole("200 OK", "", &completion(&text, "length")),
        Answer::Body(body) => whole("200 OK", "", &body),
        Answer::Status(status, wait) => {
            let more = wait.map_or_else(String::new, |s| format!("retry-after: {s}\r\n"));
            whole(&format!("{status} No"), &more, "{\"error\": {\"message\": \"scripted\"}}")
        }
        Answer::Drop => return Ok(false),
        Answer::Half => {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"choices\": [")
                .await?;
            return Ok(false);
        }
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            loop {
                stream.write_all(&[b' '; 4096]).await?;
            }
        }
        Answer::Silence(time) => {
            tokio::time::sleep(time).await;
            return Ok(false);
        }
    };
    stream.write_all(text.as_bytes()).await?;
    Ok(true)
}
