//! A request's body, bounded in bytes and in time.

use std::time::Duration;

use axum::body::Body;
use futures::StreamExt as _;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};

use super::problem::Problem;
use crate::arriving::Room;

/// A body and its room, to be held until it has been parsed.
pub(super) struct Read {
    pub(super) bytes: Vec<u8>,
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// A body that has not arrived by then holds room that others want.
const LONGEST: Duration = Duration::from_mins(1);
/// How long what is too large is read on and dropped: a client that is cut off while it sends would
/// not read why.
const FAREWELL: Duration = Duration::from_secs(5);

/// Reads a body of at most so many bytes, once there is room for it.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    most: usize,
    room: &Room,
) -> Result<Read, Problem> {
    let encoding = headers.get(CONTENT_ENCODING).map(http::HeaderValue::as_bytes);
    if encoding.is_some_and(|encoding| !encoding.eq_ignore_ascii_case(b"identity")) {
        discard(body, most).await;
        return Err(Problem::encoding());
    }
    let length = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let deadline = Instant::now() + LONGEST;
    if length.is_some_and(|length: usize| length > most) {
        discard(body, most).await;
        return Err(too_large(most));
    }
    // One that does not say how long it is may be as long as any.
    let permit = timeout_at(deadline, room.take(length.unwrap_or(most))).await;
    let permit = permit.map_err(|_| Problem::slow(LONGEST.as_secs()))?;
    let mut bytes = Vec::with_capacity(length.unwrap_or_default());
    let mut pieces = body.into_data_stream();
    loop {
        match timeout_at(deadline, pieces.next()).await {
            Err(_) => return Err(Problem::slow(LONGEST.as_secs())),
            Ok(None) => return Ok(Read { bytes, room: permit }),
            Ok(Some(Err(_))) => {
                return Err(Problem::field("body", "the body ended early").closing());
            }
            Ok(Some(Ok(piece))) if bytes.len() + piece.len() > most => {
                drop((bytes, permit));
                discard(Body::from_stream(pieces), most).await;
                return Err(too_large(most));
            }
            Ok(Some(Ok(piece))) => bytes.extend_from_slice(&piece),
        }
    }
}

/// Reads a body that nobody wants, for a while and up to some times the limit.
pub(super) async fn discard(body: Body, most: usize) {
    let mut pieces = body.into_data_stream();
    let mut left = most.saturating_mul(4);
    let reading = async {
        while let Some(Ok(piece)) = pieces.next().await {
            let Some(less) = left.checked_sub(piece.len()) else { return };
            left = less;
        }
    };
    let _ = timeout(FAREWELL, reading).await;
}

fn too_large(most: usize) -> Problem {
    let message = format!("the body has more than {most} bytes; send fewer samples at once");
    Problem::too_large(None, message).closing()
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures::stream;

    use super::*;

    fn pieces(sizes: &[usize]) -> Body {
        let pieces: Vec<_> =
            sizes.iter().map(|&n| Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; n]))).collect();
        Body::from_stream(stream::iter(pieces))
    }

    async fn status(headers: &HeaderMap, body: Body, most: usize) -> u16 {
        let room = Room::new(1 << 20, 1 << 10);
        match read(headers, body, most, &room).await {
            Ok(read) => {
                assert!(read.room.is_some());
                read.bytes.len().try_into().unwrap()
            }
            Err(problem) => problem.told().0,
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit_with_a_length_and_without() {
        let mut headers = HeaderMap::new();
        assert_eq!(status(&headers, pieces(&[10, 0, 20]), 30).await, 30);
        assert_eq!(status(&headers, pieces(&[10, 21]), 30).await, 413);
        headers.insert(CONTENT_LENGTH, 31.into());
        assert_eq!(status(&headers, pieces(&[31]), 30).await, 413);
        headers.insert(CONTENT_LENGTH, 30.into());
        assert_eq!(status(&headers, pieces(&[30]), 30).await, 30);
        headers.insert(CONTENT_ENCODING, http::HeaderValue::from_static("gzip"));
        assert_eq!(status(&headers, pieces(&[30]), 30).await, 415);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_ends_and_gives_its_room_back() {
        let room = Room::new(0, 1 << 10);
        let stalled = || Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        let read = read(&HeaderMap::new(), stalled(), 1 << 10, &room).await;
        assert_eq!(read.err().map(|problem| problem.told().0), Some(408));
        assert!(timeout(FAREWELL, room.take(1 << 10)).await.unwrap().is_some());
    }
}
