use std::fmt;
use std::sync::Arc;

use futures::future::try_join_all;
use sleuth_core::{Differs, Failure, Prepared, SelfTest, SelfTestCase};
use sleuth_engine::Terms;

use crate::{LoadedModel, failures};

/// A version that was loaded and has not yet shown that it gives the right rewards.
#[derive(Debug)]
pub struct Unproven {
    model: LoadedModel,
    test: Option<SelfTest>,
}

/// Whether a version without golden rewards may serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Proof {
    /// It may; what it has must hold.
    #[default]
    WhereThere,
    /// It may not.
    Required,
}

/// Why a version must not serve.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Disproof {
    /// There is nothing to hold it to.
    NoTest,
    /// It could not score a case.
    Failed {
        /// The case's place in the file.
        case: usize,
        /// Why.
        failure: Failure,
    },
    /// It gives other rewards.
    Differs {
        /// The case's place in the file.
        case: usize,
        /// What is different.
        differs: Differs,
        /// What made the golden rewards.
        reference: String,
    },
}

// === impl Unproven ===

impl Unproven {
    /// A version, and the golden rewards that it must give.
    pub fn new(model: LoadedModel, test: Option<SelfTest>) -> Self {
        Self { model, test }
    }

    /// What its files and settings add up to.
    pub fn version(&self) -> &str {
        &self.model.card().version
    }

    /// Scores every case at once, as callers would, and holds each logit to the reference.
    pub async fn prove(self, proof: Proof) -> Result<LoadedModel, Disproof> {
        let Self { model, test } = self;
        let Some(test) = test else {
            if proof == Proof::Required {
                return Err(Disproof::NoTest);
            }
            tracing::warn!(
                version = model.card().version,
                "the folder has no self_test.json: nothing proves that rewards are right"
            );
            return Ok(model);
        };
        let cases = test.cases.iter().enumerate();
        let worst = try_join_all(cases.map(|(at, case)| held(&model, &test, at, case))).await?;
        tracing::info!(
            version = model.card().version,
            reference = test.reference,
            cases = worst.len(),
            worst = worst.into_iter().fold(0.0_f32, f32::max),
            "golden rewards hold"
        );
        Ok(model)
    }
}

async fn held(
    model: &LoadedModel,
    test: &SelfTest,
    at: usize,
    case: &SelfTestCase,
) -> Result<f32, Disproof> {
    let logits =
        logits(model, case).await.map_err(|failure| Disproof::Failed { case: at, failure })?;
    case.compare(&logits, test.tolerance).map_err(|differs| Disproof::Differs {
        case: at,
        differs,
        reference: test.reference.clone(),
    })
}

async fn logits(model: &LoadedModel, case: &SelfTestCase) -> Result<Vec<f32>, Failure> {
    let SelfTestCase { image, prompt, response, .. } = case;
    let prompt = if prompt.is_empty() { &model.card().prompt } else { prompt };
    let prepared = Prepared {
        pixels: model.prepare.pixels(image)?,
        image_key: key(model, image),
        prompt: model.prompt(prompt)?,
        response: Arc::from(model.prepare.response(response)?.ids),
    };
    let terms = Terms { tenant: Arc::from("self-test"), priority: 0 };
    let scores = model.engine.submit(prepared, terms, None).await.map_err(failures::from_engine)?;
    Ok(scores.logits)
}

/// A name of the test's own: its picture must be computed, and a caller's be found by nobody.
fn key(model: &LoadedModel, image: &[u8]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key("sleuth 2026 self-test");
    hasher.update(&model.prepare.image_key(blake3::hash(image).as_bytes()));
    *hasher.finalize().as_bytes()
}

// === impl Disproof ===

impl fmt::Display for Disproof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoTest => f.write_str(
                "the folder has no self_test.json, and the settings ask for one (model.require_self_test)",
            ),
            Self::Failed { case, failure } => {
                write!(f, "self_test.json, case {case}: {failure}")
            }
            Self::Differs { case, differs, reference } => {
                write!(f, "self_test.json, case {case}: {differs} ({reference})")
            }
        }
    }
}

impl std::error::Error for Disproof {}

#[cfg(test)]
mod tests;
