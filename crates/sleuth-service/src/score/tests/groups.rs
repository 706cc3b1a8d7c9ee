use std::time::Duration;

use sleuth_core::{ErrorClass, Group, Reason};
use sleuth_engine::fake::FakeModel;
use sleuth_engine::{Engine, EngineSettings};

use super::bench::{Bench, Verdict, pass, request};
use super::*;
use crate::fake::FakePrepare;

fn grouped(response: &str, group: &str, size: Option<u32>) -> ScoreRequest<Bytes> {
    let mut request = request(b"cat", response);
    request.context.group =
        Some(Group { id: group.to_owned(), size, expected_response_tokens: None });
    request
}

async fn version(name: &str) -> LoadedModel {
    let (model, _) = FakeModel::new([]);
    let engine = Engine::start(model.builder(), EngineSettings::default()).await.unwrap();
    let card = ModelCard { version: name.to_owned(), ..card() };
    LoadedModel::new(card, FakePrepare::default(), engine)
}

fn of(verdict: &Verdict) -> &str {
    verdict.as_ref().map_or("", |scored| scored.version.as_str())
}

#[tokio::test]
async fn a_group_keeps_the_version_it_began_with() {
    let bench = Bench::new([]).await;
    let keep = Duration::from_mins(5);
    assert_eq!(of(&bench.score(grouped("a", "old", None)).await), "v1");
    bench.service.registry().replace(version("v2").await, keep);
    assert_eq!(bench.service.registry().versions(), ["v2", "v1"]);
    assert_eq!(bench.service.model().version, "v2");
    for n in 0..10 {
        let (old, new) = (format!("o{n}"), format!("n{n}"));
        assert_eq!(of(&bench.score(grouped(&old, "old", None)).await), "v1");
        assert_eq!(of(&bench.score(grouped(&new, "new", None)).await), "v2");
        assert_eq!(of(&bench.score(request(b"cat", "alone")).await), "v2");
    }
    let mut asked = grouped("x", "old", None);
    asked.context.required_version = Some("v2".to_owned());
    let failure = bench.score(asked).await.unwrap_err();
    assert_eq!(
        (failure.class, failure.reason),
        (ErrorClass::VersionChanged, Reason::VERSION_MISMATCH)
    );
    let mut asked = request(b"cat", "x");
    asked.context.required_version = Some("v1".to_owned());
    assert_eq!(of(&bench.score(asked).await), "v1");

    pass(keep + Duration::from_secs(1)).await;
    assert_eq!(bench.service.registry().versions(), ["v2"]);
    let failure = bench.score(grouped("late", "old", None)).await.unwrap_err();
    assert_eq!(failure.class, ErrorClass::VersionChanged);
    assert_eq!(failure.reason, Reason::GROUP_VERSION_GONE);
    assert_eq!(of(&bench.score(grouped("late", "new", None)).await), "v2");
}

#[tokio::test]
async fn a_version_goes_with_the_last_member_of_its_groups() {
    let bench = Bench::new([]).await;
    for n in 0..3 {
        bench.score(grouped(&n.to_string(), "g", Some(4))).await.unwrap();
    }
    bench.service.registry().replace(version("v2").await, Duration::from_hours(1));
    assert_eq!(bench.service.registry().versions(), ["v2", "v1"]);
    assert_eq!(of(&bench.score(grouped("last", "g", Some(4))).await), "v1");
    assert_eq!(bench.service.registry().versions(), ["v2"]);
    let failure = bench.score(grouped("one more", "g", Some(4))).await.unwrap_err();
    assert_eq!(failure.reason, Reason::GROUP_VERSION_GONE, "never mixed");
    let other = Caller::new("other");
    let verdict = bench.service.score(&other, grouped("x", "g", Some(4))).await;
    assert_eq!(of(&verdict), "v2", "groups are a tenant's own");
}

#[tokio::test]
async fn a_required_version_other_than_the_stored_one_scores_again() {
    let bench = Bench::new([]).await;
    let keyed = |version: Option<&str>| {
        let mut request = request(b"cat", "fine");
        request.context.idempotency_key = Some("k".to_owned());
        request.context.required_version = version.map(str::to_owned);
        request
    };
    assert_eq!(of(&bench.score(keyed(None)).await), "v1");
    bench.service.registry().replace(version("v2").await, Duration::from_hours(1));
    assert_eq!(of(&bench.score(keyed(None)).await), "v1", "any version will do");
    assert_eq!(of(&bench.score(keyed(Some("v2"))).await), "v2");
    assert_eq!(of(&bench.score(keyed(Some("v2"))).await), "v2");
    let stats = bench.service.stats().idempotency;
    assert_eq!((stats.replayed, stats.rescored), (2, 1));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn no_group_is_ever_mixed(
        steps in prop::collection::vec((0_u8..6, 0_u8..20), 1..120),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().build().unwrap();
        runtime.block_on(async {
            let bench = Bench::new([]).await;
            let mut seen: std::collections::HashMap<u8, String> = std::collections::HashMap::new();
            let mut versions = 1;
            for (group, event) in steps {
                match event {
                    0 => {
                        versions += 1;
                        let model = version(&format!("v{versions}")).await;
                        bench.service.registry().replace(model, Duration::from_secs(30));
                    }
                    1 => pass(Duration::from_secs(20)).await,
                    _ => {
                        let asked = grouped("x", &group.to_string(), None);
                        match bench.score(asked).await {
                            Ok(scored) => {
                                let first = seen.entry(group).or_insert(scored.version.clone());
                                assert_eq!(*first, scored.version);
                            }
                            Err(failure) => assert_eq!(failure.class, ErrorClass::VersionChanged),
                        }
                    }
                }
            }
        });
    }
}
