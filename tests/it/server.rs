//! A server process of a test's own.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::command::sleuth;

/// Ended with the test.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// Of the admin port.
    pub(crate) admin: SocketAddr,
    /// Of the HTTP facades, where they are asked for.
    pub(crate) http: Option<SocketAddr>,
    log: tempfile::NamedTempFile,
    said: BufReader<ChildStdout>,
}

impl Server {
    /// On a free port, or on the one given, with more arguments for `serve`; ready.
    pub(crate) fn start(address: Option<SocketAddr>, arguments: &[&str]) -> Self {
        let mut server = Self::start_loading(address, arguments, &[]);
        server.ready();
        server
    }

    /// One that may still be loading, with variables of its environment.
    pub(crate) fn start_loading(
        address: Option<SocketAddr>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        Self::spawn("serve", address, arguments, variables)
    }

    /// A router before replicas, with more arguments for `route`; it answers once one of them does.
    pub(crate) fn route(
        address: Option<SocketAddr>,
        replicas: &[SocketAddr],
        more: &[&str],
    ) -> Self {
        let mut router = Self::route_to_none(address, replicas, more);
        router.ready();
        router
    }

    /// A router that may have no replica yet.
    pub(crate) fn route_to_none(
        address: Option<SocketAddr>,
        replicas: &[SocketAddr],
        more: &[&str],
    ) -> Self {
        let urls: Vec<String> =
            replicas.iter().map(|replica| format!("http://{replica}")).collect();
        let urls = urls.join(",");
        let arguments = [&["--replicas", urls.as_str()], more].concat();
        Self::spawn("route", address, &arguments, &[])
    }

    fn spawn(
        command: &str,
        address: Option<SocketAddr>,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let listen = address.map_or_else(|| "127.0.0.1:0".to_owned(), |a| a.to_string());
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut child = sleuth(&[command, "--listen", &listen, "--admin-listen", "127.0.0.1:0"])
            .args(arguments)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .stderr(log.reopen().unwrap())
            .spawn()
            .unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap());
        let mut address = |what: &str| {
            let mut line = String::new();
            said.read_line(&mut line).unwrap();
            line.trim().strip_prefix(what).expect(what).parse().unwrap()
        };
        let (listening, admin) = (address("listening on "), address("admin on "));
        let http = arguments.contains(&"--http-listen").then(|| address("http on "));
        Self { child, address: listening, admin, http, log, said }
    }

    /// Waits until items are taken.
    pub(crate) fn ready(&mut self) {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "ready", "{}", self.log());
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

    /// Waits for the end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    /// What was logged so far.
    pub(crate) fn log(&self) -> String {
        let mut log = String::new();
        File::open(self.log.path()).unwrap().read_to_string(&mut log).unwrap();
        log
    }

    /// The status of a page of the admin port, and its text.
    pub(crate) fn page(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.admin).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (status, answer.split("\r\n\r\n").nth(1).unwrap_or_default().to_owned())
    }

    /// Ends at once, as by `kill -9`.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Items that the engine computed; of a server that drained.
    pub(crate) fn computed(&self) -> u64 {
        let log = self.log();
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

/// An address that nothing listens on, and that nobody else will be given: outgoing connections have
/// ports of 127.0.0.1, and no two calls give the same host.
pub(crate) fn free_address() -> SocketAddr {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let [_, _, high, low] = call.to_be_bytes();
    let host =
        Ipv4Addr::new(127, 64 + (std::process::id() % 128) as u8, high, low.saturating_add(1));
    TcpListener::bind((host, 0)).unwrap().local_addr().unwrap()
}
