//! From a request to its answer.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::{Body, Bytes};
use futures::FutureExt as _;
use http::{Request, Response, StatusCode};
use serde::Serialize;
use sleuth_core::{Failure, Scored};
use sleuth_service::Caller;
use sleuth_wire::Trace;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};
use tonic::metadata::MetadataMap;

use super::models::{List, Models, Usage};
use super::problem::{Problem, json};
use super::route::Route;
use super::sample::{Chosen, Sample};
use super::work::{Outcome, Work};
use super::{body, classify, get_reward, pooling};
use crate::arriving::Room;
use crate::auth::{Credentials, check};
use crate::gate;
use crate::lifecycle::Lifecycle;
use crate::observe::{Observer, trace_of_call};
use crate::reload::Latest;
use crate::scoring::{Scoring, deadline_passed, draining, panicked};
use crate::{HttpSettings, ServerSettings};

/// OpenRLHF gives up after 180 s: a request has its answer, or is told to come again, before.
const LONGEST_ANSWER: Duration = Duration::from_secs(165);
/// The longest that an item may take of it.
const LONGEST_ITEM: Duration = Duration::from_secs(160);
/// A body up to here is parsed where it was read.
const SMALL: usize = 16 << 10;

/// The facades, before and after the model has loaded. Clones are the same.
#[derive(Clone)]
pub(crate) struct Facades {
    shared: Arc<Shared>,
}

struct Shared {
    loaded: Arc<OnceLock<Arc<Scoring>>>,
    known: Option<Latest<Credentials>>,
    lifecycle: Lifecycle,
    observer: Observer,
    room: Room,
    settings: HttpSettings,
    /// Seconds since 1970.
    started: u64,
}

/// Has the facades score from now on.
pub(crate) struct Key(Arc<OnceLock<Arc<Scoring>>>);

/// A request that may be worked on.
struct Admitted {
    route: Route,
    scoring: Arc<Scoring>,
    caller: Caller,
    trace: Option<Trace>,
}

/// What a request is about, beside its body.
struct Call {
    work: Work,
    created: u64,
    max_samples: usize,
}

type Answer = Result<Response<Body>, Problem>;

// === impl Key ===

impl Key {
    pub(crate) fn open(&self, scoring: &Arc<Scoring>) {
        // A server loads once.
        let _ = self.0.set(Arc::clone(scoring));
    }
}

// === impl Facades ===

impl Facades {
    pub(crate) fn new(
        settings: &ServerSettings,
        known: Option<Latest<Credentials>>,
        lifecycle: &Lifecycle,
        room: Room,
    ) -> (Self, Key) {
        let loaded = Arc::default();
        let shared = Shared {
            loaded: Arc::clone(&loaded),
            known,
            lifecycle: lifecycle.clone(),
            observer: settings.observer.clone(),
            room,
            settings: settings.http.unwrap_or_default(),
            started: now(),
        };
        (Self { shared: Arc::new(shared) }, Key(loaded))
    }

    /// Resolves when connections are to end.
    pub(super) async fn closing(&self) {
        self.shared.lifecycle.closing().await;
    }

    /// Answers every request, and counts the answer.
    pub(super) async fn answer<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let route = Route::of(request.uri().path());
        let work = AssertUnwindSafe(self.route(route, request.map(Body::new))).catch_unwind();
        let answer = work.await.unwrap_or_else(|_| Err(Problem::of(&panicked())));
        let response = answer.unwrap_or_else(|problem| problem.response());
        let status = response.status().as_u16();
        self.shared.observer.http_answer(route.map_or("unknown", Route::name), status);
        response
    }

    async fn route(&self, route: Option<Route>, request: Request<Body>) -> Answer {
        let received = Instant::now();
        match self.admit(route, &request) {
            Ok(admitted) => self.work(admitted, request, received).await,
            Err(problem) => {
                body::discard(request.into_body(), self.shared.settings.max_body_bytes).await;
                Err(problem)
            }
        }
    }

    /// All that can be refused before a body is read.
    fn admit(&self, route: Option<Route>, request: &Request<Body>) -> Result<Admitted, Problem> {
        let route = route.ok_or_else(Problem::no_route)?;
        if request.method() != route.method() {
            return Err(Problem::method(route.allow()));
        }
        let refused = |failure: Failure| Problem::of(&failure);
        let known = self.shared.known.as_ref().map(Latest::get);
        let identity = check(request, known.as_ref(), route.access()).map_err(refused)?;
        let scoring = self.shared.loaded.get().ok_or_else(|| refused(gate::loading()))?;
        if self.shared.lifecycle.is_draining() {
            return Err(refused(draining()));
        }
        let metadata = MetadataMap::from_headers(request.headers().clone());
        let caller = scoring.caller(identity.as_ref(), &metadata).map_err(refused)?;
        let (scoring, trace) = (Arc::clone(scoring), trace_of_call(&metadata));
        Ok(Admitted { route, scoring, caller, trace })
    }

    async fn work(&self, admitted: Admitted, request: Request<Body>, received: Instant) -> Answer {
        let Admitted { route, scoring, caller, trace } = admitted;
        let _call = self.shared.lifecycle.call();
        let work = Work { scoring, caller, trace, received, longest: LONGEST_ITEM };
        let settings = self.shared.settings;
        let call = Call { work, created: self.shared.started, max_samples: settings.max_samples };
        let answering = async {
            match route {
                Route::Health => Ok(Response::new(Body::empty())),
                Route::Models => call.models().await,
                Route::GetReward | Route::Pooling | Route::Classify => {
                    let (parts, body) = request.into_parts();
                    let (most, room) = (settings.max_body_bytes, &self.shared.room);
                    let body = body::read(&parts.headers, body, most, room).await?;
                    call.post(route, body).await
                }
            }
        };
        tokio::select! {
            biased;
            () = self.shared.lifecycle.stopped() => Err(Problem::of(&draining())),
            answer = timeout_at(received + LONGEST_ANSWER, answering) => {
                answer.unwrap_or_else(|_| Err(Problem::of(&deadline_passed())))
            }
        }
    }
}

// === impl Call ===

impl Call {
    async fn models(&self) -> Answer {
        let chosen = Chosen::of(&*self.work.scoring.scorer, None).await?;
        Ok(json(StatusCode::OK, &Models::of(&chosen.card, self.created)))
    }

    async fn post(self, route: Route, body: body::Read) -> Answer {
        let (limits, most) = (self.work.scoring.limits, self.max_samples);
        match route {
            Route::GetReward => {
                self.get_reward(parsed(body, move |b| get_reward::parse(b, &limits, most)).await?)
                    .await
            }
            Route::Pooling => {
                self.pooling(parsed(body, move |b| pooling::parse(b, &limits)).await?).await
            }
            Route::Classify => {
                self.classify(parsed(body, move |b| classify::parse(b, &limits, most)).await?).await
            }
            Route::Models | Route::Health => Err(Problem::no_route()),
        }
    }

    async fn get_reward(self, asked: get_reward::Asked) -> Answer {
        let chosen = Chosen::of(&*self.work.scoring.scorer, asked.model).await?;
        let (failures, samples) = apart(asked.samples);
        let mut items = chosen.items(Route::GetReward, samples).into_iter();
        // Those that are bad already stand where they stood.
        let items = failures.into_iter().map(|bad| match bad {
            Some(failure) => Err(failure),
            None => items.next().ok_or_else(panicked),
        });
        let outcomes = self.work.score(items.collect()).await;
        let outcomes = outcomes.map_err(|failure| Problem::of(&failure))?;
        let answer = get_reward::Answer::of(outcomes, asked.spans, chosen.card.threshold);
        Ok(json(StatusCode::OK, &answer))
    }

    async fn pooling(self, asked: pooling::Asked) -> Answer {
        let chosen = Chosen::of(&*self.work.scoring.scorer, asked.model).await?;
        let outcomes = self.all(&chosen, Route::Pooling, vec![asked.sample]).await?;
        let scored = valid(outcomes, |_, failure| Problem::of(failure).at("messages"))?;
        let rows: Vec<_> =
            scored.iter().map(|scored| pooling::Row::of(scored, asked.form)).collect();
        Ok(list("pool", &chosen, &scored, rows))
    }

    async fn classify(self, asked: classify::Asked) -> Answer {
        let chosen = Chosen::of(&*self.work.scoring.scorer, asked.model).await?;
        let (field, many) = (asked.field, asked.samples.len() > 1);
        let place = |n: usize| if many { format!("{field}[{n}]") } else { field.to_owned() };
        let outcomes = self.all(&chosen, Route::Classify, asked.samples).await?;
        let scored = valid(outcomes, |n, failure| Problem::of(failure).at(place(n)))?;
        let rows = scored.iter().enumerate().map(|(n, scored)| {
            classify::Row::of(n, scored, asked.is_raw).map_err(|f| Problem::of(&f).at(place(n)))
        });
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        Ok(list("classify", &chosen, &scored, rows))
    }

    async fn all(
        &self,
        chosen: &Chosen,
        route: Route,
        samples: Vec<Sample>,
    ) -> Result<Vec<Outcome>, Problem> {
        let items = chosen.items(route, samples).into_iter().map(Ok).collect();
        self.work.score(items).await.map_err(|failure| Problem::of(&failure))
    }
}

/// vLLM's list of rows, with what it says of its making.
fn list<T: Serialize>(
    kind: &str,
    chosen: &Chosen,
    scored: &[Scored],
    data: Vec<T>,
) -> Response<Body> {
    let tokens = scored.iter().map(|scored| scored.tokens.len()).sum();
    let version = scored.first().map_or(&*chosen.card.version, |scored| &*scored.version);
    let mut id = [0; 16];
    // Without random numbers ids are alike; nothing depends on them.
    let _ = getrandom::fill(&mut id);
    let list = List {
        id: format!("{kind}-{:032x}", u128::from_be_bytes(id)),
        object: "list",
        created: now(),
        model: &chosen.card.name,
        version,
        data,
        usage: Usage::of(tokens),
    };
    json(StatusCode::OK, &list)
}

/// Parses a body; a large one beside the threads that serve. Its room is given back then.
async fn parsed<T: Send + 'static>(
    body: body::Read,
    parse: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    if body.bytes.len() <= SMALL {
        return parse(&body.bytes);
    }
    let parsing = spawn_blocking(move || {
        let body::Read { bytes, room } = body;
        let parsed = parse(&bytes);
        drop((bytes, room));
        parsed
    });
    parsing.await.unwrap_or_else(|_| Err(Problem::of(&panicked())))
}

/// What is bad, by place, and what is not, in order.
fn apart(samples: Vec<Result<Sample, Failure>>) -> (Vec<Option<Failure>>, Vec<Sample>) {
    let mut good = Vec::with_capacity(samples.len());
    let bad = samples.into_iter().map(|sample| sample.map(|sample| good.push(sample)).err());
    (bad.collect(), good)
}

/// All of them, or the first that has no reward.
fn valid(
    outcomes: Vec<Outcome>,
    problem: impl Fn(usize, &Failure) -> Problem,
) -> Result<Vec<Scored>, Problem> {
    let outcomes = outcomes.into_iter().enumerate();
    outcomes.map(|(n, outcome)| outcome.map_err(|failure| problem(n, &failure))).collect()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
