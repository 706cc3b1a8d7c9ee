//! Tells a client that speaks without TLS why it is not served.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// What a client speaks instead of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    Http1,
    Http2,
    Other,
}

/// The first byte of every TLS record that opens a handshake.
const HANDSHAKE: u8 = 22;
/// How HTTP/2 begins.
const PREFACE: &[u8] = b"PRI ";
/// An empty SETTINGS frame, then GOAWAY of stream 0: INADEQUATE_SECURITY, and why. The length of
/// GOAWAY's payload is 8 and the text's.
const TEXT: &[u8] = b"this port speaks TLS: use https";
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
const GOAWAY: [u8; 17] = [0, 0, 8 + TEXT.len() as u8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12];
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 32\r\n\r\n";
/// How long the client gets to read it.
const FAREWELL: Duration = Duration::from_millis(500);

// === impl Plain ===

impl Plain {
    /// Looks at what the client sent first, without taking it; `None` for TLS.
    pub(super) async fn of(stream: &TcpStream) -> io::Result<Option<Self>> {
        let mut first = [0; PREFACE.len()];
        let n = stream.peek(&mut first).await?;
        Ok(match first.get(..n) {
            None | Some([]) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some([HANDSHAKE, ..]) => None,
            Some(PREFACE) => Some(Self::Http2),
            Some([b'A'..=b'Z', ..]) => Some(Self::Http1),
            Some(_) => Some(Self::Other),
        })
    }

    pub(super) async fn tell(self, stream: &mut TcpStream) {
        let words: &[&[u8]] = match self {
            Self::Http1 => &[BAD_REQUEST, TEXT, b"\n"],
            Self::Http2 => &[&SETTINGS, &GOAWAY, TEXT],
            Self::Other => return,
        };
        let said = async {
            for part in words {
                stream.write_all(part).await?;
            }
            stream.shutdown().await?;
            // What stays unread would make the system reset the connection before it is read.
            let mut rest = [0; 1024];
            while stream.read(&mut rest).await? > 0 {}
            io::Result::Ok(())
        };
        let _ = timeout(FAREWELL, said).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_text() {
        assert_eq!(TEXT.len() + 1, 32);
        assert_eq!(usize::from(GOAWAY[2]), 8 + TEXT.len());
    }
}
