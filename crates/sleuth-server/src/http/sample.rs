use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use sleuth_core::{Failure, ModelCard};
use sleuth_proto::v1;
use sleuth_service::Scorer;

use super::picture::Picture;
use super::problem::Problem;
use super::route::Route;

/// One response to score.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sample {
    pub(super) picture: Picture,
    /// `None` takes the model's own.
    pub(super) prompt: Option<String>,
    pub(super) response: String,
}

/// The model that a request is for.
#[derive(Clone, Debug)]
pub(super) struct Chosen {
    pub(super) card: Arc<ModelCard>,
    /// Empty for the one that items without an adapter get.
    adapter: String,
}

// === impl Chosen ===

impl Chosen {
    /// By name: none, the model's own name or version, a path that ends in its name (as trainers
    /// send), or an adapter's name.
    pub(super) async fn of(scorer: &dyn Scorer, name: Option<String>) -> Result<Self, Problem> {
        let card = scorer.model_of("").await.map_err(|failure| Problem::of(&failure))?;
        let name = name.unwrap_or_default();
        let last = name.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        let is_default = last.is_empty() || last == card.name || name == card.version;
        if is_default || card.adapter.as_ref() == Some(&name) {
            return Ok(Self { card, adapter: String::new() });
        }
        match scorer.model_of(&name).await {
            Ok(card) => Ok(Self { card, adapter: name }),
            Err(failure) if failure.class == sleuth_core::ErrorClass::Unknown => {
                let message = format!(
                    "no model or adapter of that name is served; `{}` is, and is taken where \
                     `model` is absent",
                    card.name
                );
                Err(Problem::of(&Failure { detail: message, ..failure }).at("model"))
            }
            Err(failure) => Err(Problem::of(&failure).at("model")),
        }
    }

    /// Items of these samples. Idempotency keys are of their content, so that a request that is sent
    /// again joins its work or gets its verdicts; those of one image and prompt are one group.
    pub(super) fn items(&self, route: Route, samples: Vec<Sample>) -> Vec<v1::Item> {
        let groups: Vec<String> = samples.iter().map(|sample| self.group(sample)).collect();
        let mut sizes = HashMap::<_, u32>::new();
        for group in &groups {
            *sizes.entry(group.clone()).or_default() += 1;
        }
        let item = |(sample, id): (Sample, String)| {
            let mut hasher = blake3::Hasher::new();
            put(&mut hasher, id.as_bytes());
            put(&mut hasher, sample.response.as_bytes());
            let key = format!("http/{}/{}", route.name(), hasher.finalize().to_hex());
            let size = sizes.get(&id).copied().filter(|&size| size > 1).unwrap_or_default();
            self.item(sample, key, v1::Group { id, size, ..v1::Group::default() })
        };
        samples.into_iter().zip(groups).map(item).collect()
    }

    fn item(&self, sample: Sample, idempotency_key: String, group: v1::Group) -> v1::Item {
        let context = v1::Context {
            group: Some(group),
            idempotency_key,
            adapter: self.adapter.clone(),
            image: Some(v1::Image { source: Some(sample.picture.source) }),
            prompt: sample.prompt.map(Bytes::from),
            ..v1::Context::default()
        };
        v1::Item { context: Some(context), response: sample.response.into(), policy: None }
    }

    /// Of one version, image and prompt: a group ends with its version.
    fn group(&self, sample: &Sample) -> String {
        let mut hasher = blake3::Hasher::new();
        put(&mut hasher, self.card.version.as_bytes());
        put(&mut hasher, self.adapter.as_bytes());
        put(&mut hasher, &sample.picture.blake3);
        put(&mut hasher, &[u8::from(sample.prompt.is_some())]);
        put(&mut hasher, sample.prompt.as_deref().unwrap_or_default().as_bytes());
        format!("http/{}", hasher.finalize().to_hex())
    }
}

/// Lengths stand before texts, so that no two lists of texts are alike.
fn put(hasher: &mut blake3::Hasher, bytes: &[u8]) {
    hasher.update(&(bytes.len() as u64).to_le_bytes());
    hasher.update(bytes);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sleuth_proto::v1::image::Source;
    use sleuth_service::fake::WordScorer;

    use super::*;

    fn sample(image: u8, prompt: Option<&str>, response: &str) -> Sample {
        Sample {
            picture: Picture { source: Source::Data(vec![image].into()), blake3: [image; 32] },
            prompt: prompt.map(str::to_owned),
            response: response.to_owned(),
        }
    }

    async fn chosen(name: &str) -> Result<Chosen, Problem> {
        Chosen::of(&WordScorer::new(Duration::ZERO), Some(name.to_owned())).await
    }

    #[tokio::test]
    async fn a_model_is_known_by_its_name_its_version_or_its_path() {
        for name in ["", "mini", "v1", "/models/mini", "models/mini/", "tldr"] {
            assert_eq!(chosen(name).await.unwrap().adapter, "", "{name}");
        }
        let problem = chosen("gpt").await.unwrap_err();
        assert_eq!((problem.told().0, problem.told().1), (404, Some("model")));
        assert!(problem.told().2.contains("`mini`"));
    }

    #[tokio::test]
    async fn the_same_content_has_the_same_key_and_other_content_another() {
        let chosen = chosen("").await.unwrap();
        let samples = vec![
            sample(1, None, "a"),
            sample(1, None, "a"),
            sample(1, None, "b"),
            sample(1, Some(""), "a"),
            sample(2, None, "a"),
        ];
        let items = chosen.items(Route::GetReward, samples.clone());
        let context = |n: usize| items[n].context.clone().unwrap();
        let key = |n: usize| context(n).idempotency_key;
        assert_eq!(key(0), key(1));
        let distinct: std::collections::HashSet<_> = (0..5).map(key).collect();
        assert_eq!(distinct.len(), 4);
        assert!(key(0).len() <= 256);
        assert_eq!((context(0).group.unwrap().size, context(4).group.unwrap().size), (3, 0));
        let others = chosen.items(Route::Pooling, samples);
        assert_ne!(others[0].context.clone().unwrap().idempotency_key, key(0));
    }
}
