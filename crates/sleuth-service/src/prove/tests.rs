use sleuth_core::Tolerance;
use sleuth_engine::fake::{Act, FakeModel, logit};
use sleuth_engine::{Engine, EngineSettings};

use super::*;
use crate::fake::{FakePrepare, card};

async fn model(script: impl IntoIterator<Item = Act>) -> LoadedModel {
    let (model, _) = FakeModel::new(script);
    let engine = Engine::start(model.builder(), EngineSettings::default()).await.unwrap();
    LoadedModel::new(card(), FakePrepare::default(), engine)
}

fn case(response: &str, logits: Vec<f32>) -> SelfTestCase {
    SelfTestCase {
        image: b"cat".to_vec(),
        prompt: String::new(),
        response: response.to_owned(),
        logits,
    }
}

fn golden(response: &str) -> SelfTestCase {
    case(response, response.bytes().map(|byte| logit(u32::from(byte))).collect())
}

fn test(cases: Vec<SelfTestCase>) -> SelfTest {
    let tolerance = Tolerance { absolute: 1e-6, relative: 0.0 };
    SelfTest { reference: "by hand".to_owned(), tolerance, cases }
}

#[tokio::test]
async fn golden_rewards_that_hold_let_a_version_serve() {
    let unproven = Unproven::new(model([]).await, Some(test(vec![golden("ab"), golden("xyz")])));
    assert_eq!(unproven.prove(Proof::Required).await.unwrap().card().version, "v1");
}

#[tokio::test]
async fn another_reward_keeps_a_version_out_and_is_named() {
    let mut wrong = golden("xyz");
    wrong.logits[2] += 0.01;
    let unproven = Unproven::new(model([]).await, Some(test(vec![golden("ab"), wrong])));
    let disproof = unproven.prove(Proof::WhereThere).await.unwrap_err();
    let Disproof::Differs { case: 1, differs: Differs::Logit { token: 2, .. }, .. } = &disproof
    else {
        panic!("{disproof:?}")
    };
    assert!(disproof.to_string().contains("by hand"), "{disproof}");
}

#[tokio::test]
async fn a_version_that_cannot_score_a_case_is_kept_out() {
    let unproven = Unproven::new(model([Act::Panic]).await, Some(test(vec![golden("ab")])));
    let disproof = unproven.prove(Proof::WhereThere).await.unwrap_err();
    assert!(matches!(disproof, Disproof::Failed { case: 0, .. }), "{disproof:?}");
}

#[tokio::test]
async fn without_golden_rewards_the_settings_decide() {
    let without = || async { Unproven::new(model([]).await, None) };
    assert!(without().await.prove(Proof::WhereThere).await.is_ok());
    assert_eq!(without().await.prove(Proof::Required).await.unwrap_err(), Disproof::NoTest);
}
