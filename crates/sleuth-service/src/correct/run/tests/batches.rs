//! Over the real service and a fake engine: batches, versions, images.

use sleuth_core::{ByteSpan, ImageSource};
use sleuth_engine::fake::{FakeModel, Remote, logit};
use sleuth_engine::{Engine, EngineSettings};

use super::*;
use crate::fake::{FakePrepare, card};
use crate::{BoxFuture, LoadedModel, Put, Repair, ScoreService, Scorer as _, ServiceSettings};

async fn model(version: &str) -> (LoadedModel, Remote) {
    let (model, remote) = FakeModel::new([]);
    let engine = Engine::start(model.builder(), EngineSettings::default()).await.unwrap();
    let card = sleuth_core::ModelCard { version: version.to_owned(), ..card() };
    (LoadedModel::new(card, FakePrepare::default(), engine), remote)
}

/// Letters whose tokens the fake model flags, or not.
fn letters(flagged: bool) -> Vec<char> {
    ('a'..='z').filter(|c| (logit(u32::from(*c)) <= 0.0) == flagged).collect()
}

fn service(model: LoadedModel) -> ScoreService {
    ScoreService::new(model, ServiceSettings::default())
}

fn builtin(corrector: Arc<dyn Corrector>) -> Correctors {
    Correctors { builtin: Some(corrector), endpoint: None }
}

async fn correct(service: &ScoreService, text: &str, image: ImageSource<Bytes>) -> Correction {
    let mut request = request(text);
    request.item.context.image = image;
    let (sender, _events) = mpsc::channel(64);
    let caller = Caller::default();
    let corrections = Arc::clone(service.corrections().unwrap());
    corrections.correct(&caller, request, std::future::pending(), &sender).await
}

#[tokio::test]
async fn the_candidates_of_a_round_are_one_batch_behind_one_prefix() {
    let (bad, good) = (letters(true), letters(false));
    let text: String = [bad[0], bad[1]].iter().collect();
    let repairs: Vec<String> = good.iter().take(3).map(|c| c.to_string().repeat(2)).collect();
    let answers = repairs.iter().map(String::as_str).collect();
    let corrector = ScriptedCorrector::new(NOW, [Ok(answers)]);
    let (loaded, remote) = model("v1").await;
    let service =
        service(loaded).with_corrections(builtin(Arc::clone(&corrector) as Arc<dyn Corrector>));
    let image = Bytes::from_static(b"cat");
    let correction = correct(&service, &text, ImageSource::Data(image.clone())).await;
    let corrected = correction.outcome.unwrap();
    assert_eq!((corrected.kept, corrected.scored.version.as_str()), (1, "v1"));
    let batches = remote.batches();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [1, 3]);
    assert!(batches[1].iter().all(|item| item.prompt == batches[0][0].prompt));
    let asked = &corrector.asked()[0];
    assert_eq!(asked.image.data, image);
    assert_eq!(asked.image_key, batches[0][0].image_key);
    assert_eq!(asked.pixels, batches[0][0].pixels);
    assert_eq!(asked.flagged, [ByteSpan::try_new(0, 2).unwrap()]);
}

/// Replaces the model before it answers.
struct Swap(ScoreService, String);

impl Corrector for Swap {
    fn propose<'a>(&'a self, _: &'a RepairRequest) -> BoxFuture<'a, Result<Vec<Repair>, Failure>> {
        Box::pin(async {
            self.0.registry().replace(model("v2").await.0, Duration::ZERO);
            Ok(vec![Repair { response: self.1.clone(), changed: Vec::new() }])
        })
    }
}

#[tokio::test]
async fn a_version_that_leaves_meanwhile_still_judges_its_item() {
    let (bad, good) = (letters(true)[0], letters(false)[0]);
    let service = service(model("v1").await.0);
    let swap = Swap(service.clone(), good.to_string());
    let service = service.with_corrections(builtin(Arc::new(swap)));
    let image = ImageSource::Data(Bytes::from_static(b"cat"));
    let corrected = correct(&service, &bad.to_string(), image).await.outcome.unwrap();
    assert_eq!((corrected.response, corrected.kept), (good.to_string(), 1));
    assert_eq!(corrected.scored.version, "v1", "never mixed");
    assert_eq!(service.model().version, "v2");
}

#[tokio::test]
async fn an_image_that_was_put_is_shown_to_the_corrector() {
    let (bad, good) = (letters(true)[0], letters(false)[0]);
    let corrector = ScriptedCorrector::new(NOW, [Ok(vec![&good.to_string()])]);
    let service = service(model("v1").await.0)
        .with_corrections(builtin(Arc::clone(&corrector) as Arc<dyn Corrector>));
    let data = Bytes::from_static(b"cat");
    let digest = *blake3::hash(&data).as_bytes();
    let unknown = correct(&service, &bad.to_string(), ImageSource::Digest(digest)).await;
    assert_eq!(unknown.outcome.unwrap_err().reason, Reason::IMAGE_UNKNOWN);
    let put = service.images().put(&Caller::default(), digest, data.len() as u64).unwrap();
    let Put::Wanted(mut upload) = put else { panic!("wanted") };
    upload.write(&data).unwrap();
    upload.finish().unwrap();
    let corrected = correct(&service, &bad.to_string(), ImageSource::Digest(digest)).await;
    assert_eq!(corrected.outcome.unwrap().kept, 1);
    assert_eq!(corrector.asked()[0].image.data, data);
}
