use std::time::Duration;

use futures::{Stream, StreamExt as _};
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1;
use sleuth_proto::v1::put_image_request::Kind;
use sleuth_service::{Caller, Put, Upload};
use sleuth_wire::{Place, digest, status};
use tokio::time::timeout;
use tonic::Status;

use crate::scoring::{Scoring, draining};

/// Most images that are looked for at once.
const MAX_LOOKED_FOR: usize = 1024;
/// An upload that sends nothing for so long is given up, as it holds room that others want.
const STALLED: Duration = Duration::from_secs(30);

/// Puts an image: a header, then chunks. One that is here already is answered at once.
pub(crate) async fn put(
    scoring: &Scoring,
    caller: &Caller,
    mut messages: impl Stream<Item = Result<v1::PutImageRequest, Status>> + Unpin,
) -> Result<v1::PutImageResponse, Status> {
    let refused = |failure: Failure| status(&failure, Place::Header);
    if scoring.lifecycle.is_draining() {
        return Err(refused(draining()));
    }
    let Some(Kind::Header(header)) = next(&mut messages).await? else {
        return Err(status(&expected("the first message holds the header"), Place::Request));
    };
    let blake3 = digest(&header.blake3, "blake3").map_err(refused)?;
    let put = scoring.scorer.images().put(caller, blake3, header.size_bytes);
    let was_present = match put.map_err(refused)? {
        Put::Present => true,
        Put::Wanted(upload) => {
            receive(*upload, messages).await?;
            false
        }
    };
    Ok(v1::PutImageResponse { blake3: header.blake3, was_present })
}

async fn receive(
    mut upload: Upload,
    mut messages: impl Stream<Item = Result<v1::PutImageRequest, Status>> + Unpin,
) -> Result<(), Status> {
    loop {
        match next(&mut messages).await? {
            Some(Kind::Chunk(chunk)) => {
                upload.write(&chunk).map_err(|f| status(&f, Place::Header))?;
            }
            Some(Kind::Header(_)) => {
                let failure = expected("only the first message holds a header");
                return Err(status(&failure, Place::Request));
            }
            None => return upload.finish().map_err(|f| status(&f, Place::Header)),
        }
    }
}

/// The next message's kind; `None` at the end.
async fn next(
    messages: &mut (impl Stream<Item = Result<v1::PutImageRequest, Status>> + Unpin),
) -> Result<Option<Kind>, Status> {
    let Ok(message) = timeout(STALLED, messages.next()).await else {
        let detail = format!("nothing came for {} s", STALLED.as_secs());
        let failure = Failure::new(ErrorClass::Deadline, Reason::DEADLINE_PASSED, detail);
        return Err(status(&failure, Place::Request));
    };
    let Some(message) = message.transpose()? else { return Ok(None) };
    let kind = message.kind;
    kind.map(Some)
        .ok_or_else(|| status(&expected("a message holds a header or a chunk"), Place::Request))
}

/// Which of these images are here.
pub(crate) fn has(
    scoring: &Scoring,
    caller: &Caller,
    asked: &v1::HasImagesRequest,
) -> Result<v1::HasImagesResponse, Failure> {
    let n = asked.blake3.len();
    if n > MAX_LOOKED_FOR {
        let detail = format!("asks for {n} images; at most {MAX_LOOKED_FOR}");
        return Err(Failure::new(ErrorClass::TooLarge, Reason::FIELD_INVALID, detail).at("blake3"));
    }
    let digests: Vec<[u8; 32]> =
        asked.blake3.iter().map(|bytes| digest(bytes, "blake3")).collect::<Result<_, _>>()?;
    Ok(v1::HasImagesResponse { present: scoring.scorer.images().has(caller, &digests) })
}

fn expected(detail: &str) -> Failure {
    Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_MISSING, detail).at("kind")
}
