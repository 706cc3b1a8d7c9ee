//! A server process of a test's own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::command::sleuth;

/// Ended with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Where metrics are, of a server that was told to serve them.
    pub(crate) metrics: Option<SocketAddr>,
    log: tempfile::NamedTempFile,
}

impl Server {
    /// On a free port, or on the one given, with more arguments for `serve`.
    pub(crate) fn start(address: Option<SocketAddr>, arguments: &[&str]) -> Self {
        let listen = address.map_or_else(|| "127.0.0.1:0".to_owned(), |a| a.to_string());
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut child = sleuth(&["serve", "--listen", &listen])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut metrics = None;
        let address = loop {
            let line = lines.next().expect("the address").unwrap();
            if let Some(address) = line.strip_prefix("listening on ") {
                break address.parse().unwrap();
            }
            let address = line.strip_prefix("metrics on ").expect("an address");
            metrics = Some(address.parse().unwrap());
        };
        Self { child, address, metrics, log }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
    }

    /// Drains, and waits for the end.
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    /// Ends at once, as by `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Items that the engine computed; of a server that drained.
    pub(crate) fn computed(&self) -> u64 {
        let mut log = String::new();
        File::open(self.log.path()).unwrap().read_to_string(&mut log).unwrap();
        let scored = regex::Regex::new(r"scored[^0-9]*?(\d+)").unwrap();
        let last = log.lines().rfind(|line| line.contains("drained") && line.contains("scored"));
        let line = last.expect("what was done is logged at the end");
        scored.captures(line).expect("a count")[1].parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An address that nothing listens on.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
