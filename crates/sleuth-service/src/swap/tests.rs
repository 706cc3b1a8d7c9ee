use std::fs;

use bytes::Bytes;
use sleuth_core::{Group, ModelCard, ScoreRequest, SelfTest, SelfTestCase, Tolerance};
use sleuth_engine::fake::FakeModel;
use sleuth_engine::{Engine, EngineSettings, Health};

use super::*;
use crate::fake::{FakePrepare, card};
use crate::{Caller, Scorer as _, ServiceSettings};

/// Loads what the folder's name says: a version, whose rewards are wrong where it begins with `bad`.
#[derive(Clone, Default)]
struct Loader(Arc<std::sync::Mutex<Vec<Engine>>>);

impl Loader {
    async fn load(&self, folder: &Path, adapter: &str) -> Unproven {
        let version = folder.file_name().unwrap().to_string_lossy().into_owned();
        let (model, _) = FakeModel::new([]);
        let engine = Engine::start(model.builder(), EngineSettings::default()).await.unwrap();
        self.0.lock().unwrap().push(engine.clone());
        let bad = version.starts_with("bad").then(wrong);
        let card = ModelCard { version, adapter: Some(adapter.to_owned()), ..card() };
        Unproven::new(LoadedModel::new(card, FakePrepare::default(), engine), bad)
    }

    /// Lets go of the engines, but for a look at the last one's health.
    fn last_health(&self) -> tokio::sync::watch::Receiver<Health> {
        let engines = std::mem::take(&mut *self.0.lock().unwrap());
        engines.last().unwrap().health()
    }
}

impl LoadVersion for Loader {
    fn weights(&self, folder: PathBuf) -> BoxFuture<'_, Result<Unproven, Failure>> {
        Box::pin(async move { Ok(self.load(&folder, "tldr").await) })
    }

    fn adapter(
        &self,
        over: &str,
        name: String,
        folder: PathBuf,
    ) -> BoxFuture<'_, Result<Unproven, Failure>> {
        assert_eq!(over, "v1");
        Box::pin(async move { Ok(self.load(&folder, &name).await) })
    }
}

fn wrong() -> SelfTest {
    let case = SelfTestCase {
        image: b"cat".to_vec(),
        prompt: String::new(),
        response: "a".to_owned(),
        logits: vec![100.0],
    };
    let tolerance = Tolerance { absolute: 1.0, relative: 0.0 };
    SelfTest { reference: "nobody".to_owned(), tolerance, cases: vec![case] }
}

struct Bench {
    root: tempfile::TempDir,
    loader: Loader,
    service: ScoreService,
    swap: Swap,
}

impl Bench {
    /// Over a version `v1`, with folders of these names.
    async fn new(folders: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for folder in folders {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        let loader = Loader::default();
        let first = loader.load(Path::new("v1"), "tldr").await.prove(Proof::WhereThere).await;
        let service = ScoreService::new(first.unwrap(), ServiceSettings::default());
        let settings =
            SwapSettings { root: Some(root.path().to_owned()), ..SwapSettings::default() };
        let swap = Swap::new(&service, loader.clone(), settings);
        Self { root, loader, service, swap }
    }

    async fn version(
        &self,
        response: &str,
        change: impl FnOnce(&mut ScoreRequest<Bytes>),
    ) -> String {
        let mut request = ScoreRequest::new(Bytes::from_static(b"cat"), response);
        change(&mut request);
        match self.service.score(&Caller::default(), request).await {
            Ok(scored) => scored.version,
            Err(failure) => failure.reason.name().to_owned(),
        }
    }
}

fn in_group(id: &'static str) -> impl FnOnce(&mut ScoreRequest<Bytes>) {
    move |request| {
        request.context.group =
            Some(Group { id: id.to_owned(), size: Some(3), expected_response_tokens: None });
    }
}

fn with_adapter(name: &'static str) -> impl FnOnce(&mut ScoreRequest<Bytes>) {
    move |request| request.context.adapter = Some(name.to_owned())
}

#[tokio::test]
async fn new_weights_answer_while_groups_end_on_the_old_ones() {
    let bench = Bench::new(&["v2"]).await;
    assert_eq!(bench.version("a", in_group("g")).await, "v1");
    let swapped = bench.swap.load_weights("v2", "", None).await.unwrap();
    assert_eq!((&*swapped.version, &*swapped.previous), ("v2", "v1"));
    assert_eq!(bench.version("b", |_| ()).await, "v2");
    assert_eq!(bench.version("c", in_group("g")).await, "v1");
    assert_eq!(bench.service.registry().versions(), ["v2", "v1"]);
    assert_eq!(bench.version("d", in_group("g")).await, "v1");
    assert_eq!(bench.service.registry().versions(), ["v2"]);
}

#[tokio::test]
async fn the_old_engine_ends_when_nothing_needs_it() {
    let bench = Bench::new(&["v2"]).await;
    let mut health = bench.loader.last_health();
    assert_eq!(bench.version("a", in_group("g")).await, "v1");
    bench.swap.load_weights("v2", "", Some(Duration::ZERO)).await.unwrap();
    health.wait_for(|h| *h == Health::Stopped).await.unwrap();
    assert_eq!(bench.version("b", in_group("g")).await, "group_version_gone");
}

#[tokio::test]
async fn a_version_with_wrong_rewards_never_serves() {
    let bench = Bench::new(&["bad"]).await;
    let failure = bench.swap.load_weights("bad", "", None).await.unwrap_err();
    assert_eq!((failure.reason, failure.field), (Reason::SELF_TEST_FAILED, Some("path")));
    let failure = bench.swap.load_adapter("x", "bad", "", true).await.unwrap_err();
    assert_eq!(failure.reason, Reason::SELF_TEST_FAILED);
    assert_eq!(bench.service.registry().versions(), ["v1"]);
    assert_eq!(bench.version("a", |_| ()).await, "v1");
}

#[tokio::test]
async fn adapters_come_and_go_by_name() {
    let bench = Bench::new(&["a1", "a2"]).await;
    assert_eq!(bench.version("a", with_adapter("extra")).await, "adapter_unknown");
    let loaded = bench.swap.load_adapter("extra", "a1", "", false).await.unwrap();
    assert_eq!((&*loaded.version, loaded.is_default), ("a1", false));
    assert_eq!(bench.version("b", with_adapter("extra")).await, "a1");
    assert_eq!(bench.version("c", with_adapter("tldr")).await, "v1");
    assert_eq!(bench.version("d", |_| ()).await, "v1");
    bench.swap.load_adapter("extra", "a2", "", false).await.unwrap();
    assert_eq!(bench.version("e", with_adapter("extra")).await, "a2");
    let names: Vec<_> = bench.swap.adapters().into_iter().map(|a| (a.name, a.is_default)).collect();
    assert_eq!(names, [("extra".to_owned(), false), ("tldr".to_owned(), true)]);
    bench.swap.unload_adapter("extra").unwrap();
    assert_eq!(bench.version("f", with_adapter("extra")).await, "adapter_unknown");
    assert_eq!(bench.swap.unload_adapter("extra").unwrap_err().reason, Reason::ADAPTER_UNKNOWN);
}

#[tokio::test]
async fn the_default_adapter_stays_until_another_is_the_default() {
    let bench = Bench::new(&["a1", "v2"]).await;
    let failure = bench.swap.unload_adapter("tldr").unwrap_err();
    assert_eq!(failure.reason, Reason::ADAPTER_IN_USE);
    assert!(bench.swap.load_adapter("extra", "a1", "", true).await.unwrap().is_default);
    assert_eq!(bench.version("a", |_| ()).await, "a1");
    assert_eq!(bench.swap.unload_adapter("extra").unwrap_err().reason, Reason::ADAPTER_IN_USE);
    bench.swap.load_weights("v2", "", None).await.unwrap();
    assert_eq!(bench.version("b", |_| ()).await, "v2");
    assert_eq!(bench.version("c", with_adapter("extra")).await, "a1", "still offered by name");
    bench.swap.unload_adapter("extra").unwrap();
}

#[tokio::test]
async fn paths_lead_nowhere_but_under_the_root() {
    let bench = Bench::new(&["v2"]).await;
    let outside = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(outside.path(), bench.root.path().join("link")).unwrap();
    for (path, reason) in [
        ("", Reason::FIELD_INVALID),
        ("../v2", Reason::FIELD_INVALID),
        ("/etc", Reason::FIELD_INVALID),
        ("./v2", Reason::FIELD_INVALID),
        ("v3", Reason::MODEL_UNKNOWN),
        ("link", Reason::MODEL_UNKNOWN),
    ] {
        let failure = bench.swap.load_weights(path, "", None).await.unwrap_err();
        assert_eq!((failure.reason, failure.field), (reason, Some("path")), "{path}");
    }
    let rootless = Swap::new(&bench.service, bench.loader.clone(), SwapSettings::default());
    let failure = rootless.load_weights("v2", "", None).await.unwrap_err();
    assert_eq!(failure.class, ErrorClass::Unsupported);
}

#[tokio::test]
async fn a_verdict_is_replayed_when_its_version_is_gone() {
    let bench = Bench::new(&["v2"]).await;
    let keyed = |request: &mut ScoreRequest<Bytes>| {
        in_group("g")(request);
        request.context.idempotency_key = Some("k".to_owned());
    };
    assert_eq!(bench.version("a", keyed).await, "v1");
    bench.swap.load_weights("v2", "", Some(Duration::ZERO)).await.unwrap();
    assert_eq!(bench.version("a", keyed).await, "v1", "replayed");
    assert_eq!(bench.version("b", keyed).await, "group_version_gone", "another item");
}

#[tokio::test]
async fn the_same_version_again_changes_nothing() {
    let bench = Bench::new(&["v1"]).await;
    let swapped = bench.swap.load_weights("v1", "", None).await.unwrap();
    assert_eq!((&*swapped.version, &*swapped.previous), ("v1", "v1"));
    assert_eq!(bench.service.registry().versions(), ["v1"]);
}

#[tokio::test]
async fn a_version_that_comes_back_while_it_is_held_is_the_one_that_is_there() {
    let bench = Bench::new(&["v1", "v2"]).await;
    assert_eq!(bench.version("a", in_group("g")).await, "v1");
    bench.swap.load_weights("v2", "", None).await.unwrap();
    assert_eq!(bench.version("b", in_group("h")).await, "v2");
    bench.swap.load_weights("v1", "", None).await.unwrap();
    assert_eq!(bench.service.registry().versions(), ["v1", "v2"]);
    let scored: Vec<_> = bench.service.registry().stats().iter().map(|v| v.engine.scored).collect();
    assert_eq!(scored, [1, 1], "the first v1 goes on");
}

#[tokio::test]
async fn files_of_another_version_than_expected_are_refused() {
    let bench = Bench::new(&["v2"]).await;
    let failure = bench.swap.load_weights("v2", "v3", None).await.unwrap_err();
    assert_eq!(failure.field, Some("expected_version"));
    assert!(failure.detail.contains("v2"), "{failure}");
    assert!(bench.swap.load_adapter("x", "v2", "v3", false).await.is_err());
    assert_eq!(bench.swap.load_weights("v2", "v2", None).await.unwrap().version, "v2");
}

#[tokio::test]
async fn the_defaults_own_name_belongs_to_the_default() {
    let bench = Bench::new(&["a1"]).await;
    let failure = bench.swap.load_adapter("tldr", "a1", "", false).await.unwrap_err();
    assert_eq!((failure.reason, failure.field), (Reason::ADAPTER_IN_USE, Some("name")));
    let loaded = bench.swap.load_adapter("tldr", "a1", "", true).await.unwrap();
    assert_eq!((&*loaded.version, loaded.is_default), ("a1", true));
    assert_eq!(bench.version("a", with_adapter("tldr")).await, "a1");
}
