//! Bounds the bytes of messages that are still arriving, over all calls.
//!
//! A message's length stands before it. Room for the whole of it is taken before its first byte is
//! read, and given back when it has been decoded; whoever waits for room is not read from, and
//! holds none, so that those who have room can always go on.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_wire::{Place, status};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};
use tokio_util::sync::PollSemaphore;
use tonic::Status;
use tonic::body::Body;

/// The unit of the budget, so that it fits a semaphore's counts.
const KIB: usize = 1024;
/// What stands before a message: a flag, and its length in four bytes.
const PREFIX: usize = 5;
/// A message that has not arrived by then ends its call, as it holds room that others want.
const LONGEST: Duration = Duration::from_mins(1);

/// Room for messages.
#[derive(Clone, Debug)]
pub(crate) struct Room {
    budget: Arc<Semaphore>,
    bytes: usize,
    largest: usize,
}

/// A call's body that takes room for its messages.
struct Arriving {
    inner: Body,
    budget: PollSemaphore,
    largest: usize,
    reading: Reading,
    /// Came, and is not passed on yet.
    rest: Bytes,
    held: Option<OwnedSemaphorePermit>,
    deadline: Pin<Box<Sleep>>,
}

/// What comes next.
enum Reading {
    Prefix {
        bytes: [u8; PREFIX],
        n: usize,
    },
    /// A message of this length, for which there is no room yet.
    Announced(usize),
    Message {
        left: usize,
    },
}

// === impl Room ===

impl Room {
    /// `largest` is the largest message that is decoded; there is always room for one.
    pub(crate) fn new(bytes: usize, largest: usize) -> Self {
        let bytes = bytes.max(largest);
        let permits = (bytes / KIB + 1).min(Semaphore::MAX_PERMITS);
        Self { budget: Arc::new(Semaphore::new(permits)), bytes, largest }
    }

    /// Waits for room for so many bytes; the permit gives it back. More than there is in all waits
    /// for all of it.
    pub(crate) async fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.min(self.bytes).div_ceil(KIB)).unwrap_or(u32::MAX);
        // Nobody closes the budget.
        Arc::clone(&self.budget).acquire_many_owned(permits).await.ok()
    }

    pub(crate) fn bound(&self, body: Body) -> Body {
        Body::new(Arriving {
            inner: body,
            budget: PollSemaphore::new(Arc::clone(&self.budget)),
            largest: self.largest,
            reading: Reading::START,
            rest: Bytes::new(),
            held: None,
            deadline: Box::pin(sleep(LONGEST)),
        })
    }
}

// === impl Reading ===

impl Reading {
    const START: Self = Self::Prefix { bytes: [0; PREFIX], n: 0 };
}

// === impl Arriving ===

impl Arriving {
    /// Takes room for what is announced.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Reading::Announced(length) = self.reading else { return Poll::Ready(()) };
        // One that is over the limit is refused by its length and never kept.
        if length <= self.largest {
            let permits = u32::try_from(length.div_ceil(KIB)).unwrap_or(u32::MAX);
            // Nobody closes the budget.
            self.held = ready!(self.budget.poll_acquire_many(cx, permits));
        }
        self.deadline = Box::pin(sleep(LONGEST));
        self.reading = Reading::Message { left: length };
        Poll::Ready(())
    }

    /// Passes on the next piece of what came: a prefix, or a part of a message.
    fn next_piece(&mut self) -> Bytes {
        let came = self.rest.len();
        match &mut self.reading {
            Reading::Prefix { bytes, n } => {
                let piece = self.rest.split_to(came.min(PREFIX - *n));
                for byte in &piece {
                    if let Some(place) = bytes.get_mut(*n) {
                        *place = *byte;
                    }
                    *n += 1;
                }
                if *n == PREFIX {
                    let [_, a, b, c, d] = *bytes;
                    let length = u32::from_be_bytes([a, b, c, d]) as usize;
                    self.reading =
                        if length == 0 { Reading::START } else { Reading::Announced(length) };
                }
                piece
            }
            Reading::Announced(_) => Bytes::new(),
            Reading::Message { left } => {
                let piece = self.rest.split_to(came.min(*left));
                *left -= piece.len();
                if *left == 0 {
                    self.reading = Reading::START;
                }
                piece
            }
        }
    }
}

impl http_body::Body for Arriving {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        // Whoever asks for more has decoded what was there.
        if matches!(this.reading, Reading::Prefix { n: 0, .. }) {
            this.held = None;
        }
        ready!(this.poll_room(cx));
        while this.rest.is_empty() {
            match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(ended) => return Poll::Ready(ended),
                Poll::Pending => {
                    let arrives = this.held.is_some();
                    if arrives && this.deadline.as_mut().poll(cx).is_ready() {
                        return Poll::Ready(Some(Err(too_slow())));
                    }
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Some(Ok(Frame::data(this.next_piece()))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }
}

fn too_slow() -> Status {
    let detail = format!("a message took over {} s to arrive", LONGEST.as_secs());
    status(&Failure::new(ErrorClass::Deadline, Reason::DEADLINE_PASSED, detail), Place::Request)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};
    use tokio::sync::mpsc;
    use tokio_stream::wrappers::ReceiverStream;

    use super::*;

    fn message(length: usize) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((length as u32).to_be_bytes());
        bytes.extend(std::iter::repeat_n(7, length));
        bytes
    }

    /// A body that is written piece by piece.
    fn body(room: &Room) -> (mpsc::Sender<Result<Frame<Bytes>, Status>>, Body) {
        let (sender, receiver) = mpsc::channel(64);
        (sender, room.bound(Body::new(StreamBody::new(ReceiverStream::new(receiver)))))
    }

    async fn send(sender: &mpsc::Sender<Result<Frame<Bytes>, Status>>, bytes: &[u8]) {
        sender.send(Ok(Frame::data(Bytes::copy_from_slice(bytes)))).await.unwrap();
    }

    #[tokio::test]
    async fn bytes_pass_unchanged_however_they_are_cut() {
        let room = Room::new(1 << 20, 1 << 20);
        let sent = [message(3), message(0), message(2000), message(1)].concat();
        for step in [1, 2, 5, 7, 64, sent.len()] {
            let piece = |c| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(c)));
            let pieces: Vec<_> = sent.chunks(step).map(piece).collect();
            let inner = Body::new(StreamBody::new(tokio_stream::iter(pieces)));
            let came = room.bound(inner).collect().await.unwrap().to_bytes();
            assert_eq!(came, sent, "in steps of {step}");
        }
        assert_eq!(room.budget.available_permits(), (1 << 20) / KIB + 1);
    }

    #[tokio::test]
    async fn who_finds_no_room_is_not_read_from_until_there_is() {
        let room = Room::new(0, 2 * KIB);
        let (first, mut holds) = body(&room);
        let (second, mut waits) = body(&room);
        let whole = message(2 * KIB);
        send(&first, &whole[..100]).await;
        send(&second, &whole).await;
        assert_eq!(holds.frame().await.unwrap().unwrap().into_data().unwrap().len(), PREFIX);
        assert_eq!(holds.frame().await.unwrap().unwrap().into_data().unwrap().len(), 95);
        assert_eq!(waits.frame().await.unwrap().unwrap().into_data().unwrap().len(), PREFIX);
        assert!(waits.frame().now_or_never().is_none(), "the first has all the room");
        send(&first, &whole[100..]).await;
        holds.frame().await.unwrap().unwrap();
        assert!(waits.frame().now_or_never().is_none(), "it may not be decoded yet");
        assert!(holds.frame().now_or_never().is_none(), "it is decoded, and nothing follows");
        assert_eq!(waits.frame().await.unwrap().unwrap().into_data().unwrap().len(), 2 * KIB);
        drop(waits);
        assert_eq!(room.budget.available_permits(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_stalls_ends_its_call_and_gives_its_room_back() {
        let room = Room::new(0, 2 * KIB);
        let (sender, mut stalls) = body(&room);
        send(&sender, &message(2 * KIB)[..10]).await;
        stalls.frame().await.unwrap().unwrap();
        stalls.frame().await.unwrap().unwrap();
        let status = stalls.frame().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
        drop(stalls);
        assert_eq!(room.budget.available_permits(), 3);
        // Between messages a stream may be silent for as long as it likes.
        let (sender, mut idle) = body(&room);
        send(&sender, &message(1)).await;
        idle.frame().await.unwrap().unwrap();
        idle.frame().await.unwrap().unwrap();
        assert!(tokio::time::timeout(100 * LONGEST, idle.frame()).await.is_err());
    }

    #[tokio::test]
    async fn a_message_over_the_limit_takes_no_room() {
        let room = Room::new(0, KIB);
        let (sender, mut over) = body(&room);
        send(&sender, &message(100 * KIB)).await;
        let mut came = 0;
        while came < 100 * KIB {
            came += over.frame().await.unwrap().unwrap().into_data().unwrap().len();
        }
        assert_eq!(room.budget.available_permits(), 2);
    }
}
