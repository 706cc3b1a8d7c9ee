//! Whole items: an attempt at a replica, and another one where that may help.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sleuth_client::ClientError;
use sleuth_core::{Context, Failure, ImageSource, ScoreRequest, Scored};
use sleuth_service::Caller;
use sleuth_telemetry::{KeyValue, traces};
use sleuth_wire::{Place as Field, Trace};
use tokio::time::{Instant, sleep};

use crate::asked::Asked;
use crate::failures;
use crate::fleet::{Fleet, Place, Wanted};
use crate::health::Outcome;
use crate::judge::{Cause, Next, judge};
use crate::placement::ReplicaId;
use crate::replica::Connection;

/// What was tried for an item so far.
pub(crate) struct Tries {
    most: u32,
    made: u32,
    pub(crate) avoid: Vec<ReplicaId>,
    images_sent: u32,
    versions_left: u32,
}

/// Times that a replica is given an image that it says it lacks.
const MOST_IMAGES_SENT: u32 = 2;
/// Times that another version is taken, before any verdict of the group.
const MOST_VERSIONS: u32 = 2;
/// Before the second attempt at what was busy everywhere.
const PAUSE: Duration = Duration::from_millis(20);

/// Scores an item somewhere.
pub(crate) async fn score(
    fleet: &Fleet,
    caller: &Caller,
    asked: &Arc<Asked>,
    mut request: ScoreRequest<Bytes>,
) -> Result<Scored, Failure> {
    let began = Instant::now();
    let timeout = request.context.timeout;
    let mut tries = Tries::new(fleet.settings().max_attempts);
    loop {
        let place =
            fleet.place(tries.wanted(asked, None)).await.map_err(|why| failures::unplaced(&why))?;
        tag(&place);
        request.context.timeout = timeout.map(|t| t.saturating_sub(began.elapsed()));
        let error = match attempt(fleet, caller, asked, &place, &request).await {
            Ok(scored) => {
                let noted = note(fleet, asked, &place, &scored);
                place.end(true);
                return noted.map(|()| scored);
            }
            Err(error) => error,
        };
        let replica = Arc::clone(&place.replica);
        drop(place);
        if timeout.is_some_and(|timeout| timeout <= began.elapsed()) {
            fleet.outcome(&replica.id, judge(&error).0);
            return Err(failures::deadline());
        }
        tries.again(fleet, caller, asked, &replica.id, error, Field::Score).await?;
    }
}

/// One attempt, at the replica where the item was placed.
async fn attempt(
    fleet: &Fleet,
    caller: &Caller,
    asked: &Arc<Asked>,
    place: &Place,
    request: &ScoreRequest<Bytes>,
) -> Result<Scored, ClientError> {
    let (connection, context) =
        prepare(fleet, caller, asked, place, request.context.clone()).await?;
    let request = ScoreRequest { context, ..request.clone() };
    let trace = outgoing();
    tokio::select! {
        scored = connection.client.score_once(request, trace.as_ref()) => scored,
        () = connection.lost() => Err(ClientError::StreamEnded(None)),
    }
}

/// The way to a replica, and an item's context as it goes there.
pub(crate) async fn prepare(
    fleet: &Fleet,
    caller: &Caller,
    asked: &Arc<Asked>,
    place: &Place,
    mut context: Context<Bytes>,
) -> Result<(Connection, Context<Bytes>), ClientError> {
    let replica = &place.replica;
    let connection = replica.connection(caller).ok_or(ClientError::StreamEnded(None))??;
    let version = place.placed.as_ref().and_then(|placed| placed.version.as_deref());
    if asked.group.is_some() && context.required_version.is_none() {
        context.required_version = version.map(str::to_owned);
    }
    // An image that others share goes there once; one of a lone item may as well go with it.
    let shared = asked.group.is_some() || matches!(context.image, ImageSource::Digest(_));
    if let Some(file) = asked.file.as_ref().filter(|_| shared) {
        let sending = replica.give_image(&connection, caller, asked.digest, file);
        let sent = tokio::select! {
            sent = sending => sent,
            () = connection.lost() => Err(ClientError::StreamEnded(None)),
        };
        context.image = match sent {
            Ok(true) => {
                fleet.count(|counts| counts.images_sent += 1);
                ImageSource::Digest(asked.digest)
            }
            Ok(false) => ImageSource::Digest(asked.digest),
            // No room for it there: then it goes with the item.
            Err(ClientError::Refused(_)) => ImageSource::Data(file.clone()),
            Err(error) => return Err(error),
        };
    }
    Ok((connection, context))
}

/// Takes note of a verdict. Fails where it is of another version than the group's: rewards of two
/// are never mixed.
pub(crate) fn note(
    fleet: &Fleet,
    asked: &Arc<Asked>,
    place: &Place,
    scored: &Scored,
) -> Result<(), Failure> {
    let replica = &place.replica.id;
    fleet.outcome(replica, Outcome::Good);
    let cache = scored.cache;
    fleet.count(|counts| {
        counts.reused(replica, cache.prefix_positions_reused, cache.prefix_positions_computed);
    });
    let fits = asked.group.as_ref().is_none_or(|group| fleet.fix_version(group, &scored.version));
    if fits { Ok(()) } else { Err(failures::version_gone()) }
}

/// Tells the item's trace where it went, and why.
pub(crate) fn tag(place: &Place) {
    let Some(placed) = &place.placed else { return };
    let trace = traces::current();
    trace.tag(|| KeyValue::new("sleuth.router.replica", placed.replica.to_string()));
    trace.tag(|| KeyValue::new("sleuth.router.placement", placed.reason.name()));
}

/// The trace that goes with what is sent on.
pub(crate) fn outgoing() -> Option<Trace> {
    let parent = traces::current().outgoing()?;
    Some(Trace {
        trace_id: parent.trace_id,
        parent_id: parent.span_id,
        sampled: parent.sampled,
        state: parent.state,
    })
}

// === impl Tries ===

impl Tries {
    pub(crate) const fn new(most: u32) -> Self {
        Self { most, made: 1, avoid: Vec::new(), images_sent: 0, versions_left: MOST_VERSIONS }
    }

    /// What the next attempt asks for.
    pub(crate) fn wanted(&self, asked: &Arc<Asked>, version: Option<String>) -> Wanted {
        Wanted { asked: Arc::clone(asked), version, avoid: self.avoid.clone() }
    }

    /// Takes note of a failed attempt at a replica, and gets ready for another one; fails with
    /// what the caller is to be told where there is none.
    pub(crate) async fn again(
        &mut self,
        fleet: &Fleet,
        caller: &Caller,
        asked: &Arc<Asked>,
        replica: &ReplicaId,
        error: ClientError,
        field: Field,
    ) -> Result<(), Failure> {
        let (outcome, next) = judge(&error);
        fleet.outcome(replica, outcome);
        let may_go_on = match next {
            Next::Tell => false,
            Next::SendImage => self.send_image(fleet, caller, asked, replica),
            Next::OtherVersion => self.take_other_version(fleet, asked),
            Next::Elsewhere(cause) => self.go_elsewhere(fleet, replica, cause),
        };
        if next == Next::Elsewhere(Cause::Busy) && may_go_on {
            sleep(PAUSE).await;
        }
        if may_go_on { Ok(()) } else { Err(failures::of_replica(error, field)) }
    }

    /// The replica lacks the image; it gets it once more, if the router has it.
    fn send_image(
        &mut self,
        fleet: &Fleet,
        caller: &Caller,
        asked: &Asked,
        replica: &ReplicaId,
    ) -> bool {
        if asked.file.is_none() || self.images_sent >= MOST_IMAGES_SENT {
            return false;
        }
        self.images_sent += 1;
        fleet.lacks_image(replica, caller, asked.digest);
        fleet.count(|counts| counts.retried(Cause::Image, true));
        true
    }

    /// The version that the router chose is gone. Another will do until a member of the group has
    /// its rewards.
    fn take_other_version(&mut self, fleet: &Fleet, asked: &Asked) -> bool {
        if asked.is_required() || self.versions_left == 0 {
            return false;
        }
        self.versions_left -= 1;
        let may = asked.group.as_ref().is_none_or(|group| fleet.unfix_version(group));
        if may {
            fleet.count(|counts| counts.retried(Cause::Version, true));
        }
        may
    }

    fn go_elsewhere(&mut self, fleet: &Fleet, replica: &ReplicaId, cause: Cause) -> bool {
        // Where all are full, another prefix to compute would make them fuller.
        if cause == Cause::Busy && !fleet.has_room_beside(replica) {
            return false;
        }
        self.made += 1;
        if self.made > self.most || !fleet.may_retry(cause) {
            return false;
        }
        self.avoid.push(replica.clone());
        if cause == Cause::Lost {
            fleet.count(|counts| counts.failovers += 1);
        }
        true
    }
}
