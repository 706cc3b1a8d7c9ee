use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use sleuth_core::{ErrorClass, Pixels, words};
use sleuth_engine::{
    Generate, GeneratorSettings, LanguageSettings, LanguageWorker, Sampling, Stop,
};
use sleuth_input::{ImageLimits, TextLimits};
use sleuth_models::{BackboneFolder, LoadOptions};
use tokio::time::Instant;

use super::*;
use crate::correct::EncodedImage;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
const PROMPT: &str = "Describe the image.";

fn root() -> PathBuf {
    PathBuf::from(ROOT)
}

fn preparer() -> Arc<Preparer> {
    let folder = root().join("models/mini");
    Arc::new(Preparer::from_folder(&folder, ImageLimits::default(), TextLimits::default()).unwrap())
}

async fn generator(tau: f64) -> Generator {
    let folder = root().join("models/mini");
    let options = LoadOptions { adapter: Some(folder.join("adapter")), tau };
    let opened = BackboneFolder::open(&folder, &options).unwrap();
    let load = move || LanguageWorker::load(&opened, LanguageSettings::with_threads(2), u64::MAX);
    Generator::start(load, GeneratorSettings::default()).await.unwrap()
}

async fn corrector() -> BuiltinCorrector {
    BuiltinCorrector::new(generator(0.25).await, preparer())
}

fn scene() -> (EncodedImage, Pixels, [u8; 32]) {
    let data = std::fs::read(Path::new(ROOT).join("docs/scene.png")).unwrap();
    let prepared = preparer().prepare_image(&data).unwrap();
    let blake3 = *blake3::hash(&data).as_bytes();
    (EncodedImage { data: Bytes::from(data), blake3 }, prepared.pixels, prepared.key)
}

/// `[[` and `]]` stand around what is flagged.
fn request(marked: &str, candidates: usize) -> RepairRequest {
    let mut response = String::new();
    let mut flagged = Vec::new();
    for (at, piece) in marked.split("[[").enumerate() {
        let (inside, after) = if at == 0 { ("", piece) } else { piece.split_once("]]").unwrap() };
        let start = response.len() as u32;
        response.push_str(inside);
        if at > 0 {
            flagged.push(ByteSpan::try_new(start, response.len() as u32).unwrap());
        }
        response.push_str(after);
    }
    let (image, pixels, image_key) = scene();
    let all = ByteSpan::try_new(0, response.len() as u32).unwrap();
    RepairRequest {
        image,
        pixels,
        image_key,
        prompt: PROMPT.to_owned(),
        response,
        guidance: GuidanceLevel::Token,
        flagged,
        sentences: vec![all],
        candidates,
        seed: 11,
        deadline: None,
    }
}

/// What every repair keeps to; its new spans.
fn check(request: &RepairRequest, repair: &Repair) -> Vec<String> {
    assert_eq!(repair.changed, request.flagged);
    assert_ne!(repair.response, request.response);
    // What stands between the spans is found again, in order, at both ends to the byte.
    let old = &request.response;
    let mut rest = repair.response.as_str();
    let mut new = Vec::new();
    let mut from = 0;
    for (at, span) in request.flagged.iter().enumerate() {
        let kept = &old[from..span.start() as usize];
        from = span.end() as usize;
        let next = request.flagged.get(at + 1).map_or(old.len(), |next| next.start() as usize);
        let after = &old[from..next];
        rest = rest.strip_prefix(kept).unwrap_or_else(|| panic!("{kept:?} is gone: {repair:?}"));
        let is_last = at + 1 == request.flagged.len();
        let end = if is_last {
            rest.len().checked_sub(after.len()).filter(|&end| &rest[end..] == after)
        } else {
            rest.find(after)
        };
        let text = &rest[..end.unwrap_or_else(|| panic!("{after:?} is gone: {repair:?}"))];
        let was = &old[span.range()];
        assert!(!text.is_empty() && text.trim() == text && text != was, "{text:?} for {was:?}");
        assert!(words(text).len() <= words(was).len().max(1) + 2, "{text:?} for {was:?}");
        assert!(!text.contains(['\n', '.']) || was.contains('.'), "{text:?} for {was:?}");
        new.push(text.to_owned());
        rest = &rest[text.len()..];
    }
    new
}

async fn checked(corrector: &BuiltinCorrector, request: &RepairRequest) -> Vec<Repair> {
    let repairs = corrector.propose(request).await.unwrap();
    assert!(repairs.len() <= request.candidates);
    let texts: std::collections::HashSet<&str> =
        repairs.iter().map(|repair| repair.response.as_str()).collect();
    assert_eq!(texts.len(), repairs.len(), "no text twice");
    for repair in &repairs {
        check(request, repair);
    }
    repairs
}

#[tokio::test]
async fn only_flagged_spans_change_and_nothing_comes_twice() {
    let corrector = corrector().await;
    for (marked, least) in [
        ("There are three objects. A large [[green]] triangle is left of a large circle.", 6),
        ("[[Nine]] objects are there.", 4),
        ("The image shows a large [[pink hexagon]].", 4),
        ("The image shows a large [[hexagon]]", 4),
        ("[[The image shows nothing]]", 2),
        ("A [[tiny]] circle is [[under]] a [[pink]] square.", 6),
    ] {
        let request = request(marked, 8);
        let repairs = checked(&corrector, &request).await;
        assert!(repairs.len() >= least, "{marked}: {} repairs", repairs.len());
    }
}

#[tokio::test]
async fn the_first_guess_is_a_word_of_the_kind() {
    let corrector = corrector().await;
    let request = request("There are three objects. A large [[dog]] triangle is there.", 6);
    let repairs = checked(&corrector, &request).await;
    let colours = ["red", "green", "blue", "yellow", "purple", "orange", "black", "white", "pink"];
    let first = check(&request, &repairs[0]).remove(0);
    assert!(colours.iter().any(|colour| first.contains(colour)), "{first}");
}

#[tokio::test]
async fn a_word_that_the_vocabulary_spells_in_pieces_gives_way_to_known_ones() {
    let corrector = corrector().await;
    let request = request("The large circle is [[under]] the triangle.", 4);
    let repairs = checked(&corrector, &request).await;
    let first = check(&request, &repairs[0]).remove(0);
    assert!(["below", "above", "left of", "right of"].contains(&first.as_str()), "{first}");
}

#[tokio::test]
async fn other_scripts_missing_spaces_and_odd_texts_keep_what_is_not_flagged() {
    let corrector = corrector().await;
    for marked in [
        "一只[[红]]猫。",
        "一只红[[猫]]",
        "[[一只红猫]]",
        "قطة [[حمراء]] كبيرة",
        "Ein [[Häuschen]] am See.",
        "แมว[[สี]]แดง",
        "Alargegreen[[triangle]]isthere",
        "A  large\t[[green]]\n\ntriangle",
        "a [[,]] b",
        "👍 [[red]] 👍",
        " [[red]] ",
        "<eos> [[red]] <image>",
    ] {
        checked(&corrector, &request(marked, 4)).await;
    }
}

#[tokio::test]
async fn equal_requests_get_equal_repairs_and_another_seed_may_not() {
    let corrector = corrector().await;
    let one = request("A large [[green]] triangle and a [[small]] circle.", 8);
    let first = checked(&corrector, &one).await;
    let (again, alone) = tokio::join!(corrector.propose(&one), async {
        BuiltinCorrector::new(generator(0.25).await, preparer()).propose(&one).await
    });
    assert_eq!(again.unwrap(), first);
    assert_eq!(alone.unwrap(), first);
}

#[tokio::test]
async fn nothing_flagged_and_useless_spans_give_no_repair() {
    let corrector = corrector().await;
    assert_eq!(corrector.propose(&request("A circle.", 4)).await.unwrap(), []);
    assert_eq!(corrector.propose(&request("A[[ ]]circle.", 4)).await.unwrap(), []);
    let mut outside = request("A [[circle]].", 4);
    outside.flagged = vec![ByteSpan::try_new(2, 400).unwrap(), ByteSpan::try_new(2, 2).unwrap()];
    assert_eq!(corrector.propose(&outside).await.unwrap(), []);
}

#[tokio::test]
async fn of_very_many_spans_the_first_are_rewritten() {
    let corrector = corrector().await;
    let request = request(&"A [[green]] circle. ".repeat(3 * MOST_SPANS), 2);
    let repairs = corrector.propose(&request).await.unwrap();
    assert!(!repairs.is_empty());
    for repair in repairs {
        assert_eq!(repair.changed, request.flagged[..MOST_SPANS]);
        let tail = &request.response[request.flagged[MOST_SPANS - 1].end() as usize..];
        assert!(repair.response.ends_with(tail));
    }
}

#[tokio::test]
async fn without_flags_the_prompt_is_answered_anew() {
    let corrector = corrector().await;
    for guidance in [GuidanceLevel::Response, GuidanceLevel::Naive] {
        let mut request = request("There is nothing to see in this image at all, is there.", 4);
        request.guidance = guidance;
        let repairs = corrector.propose(&request).await.unwrap();
        assert!(!repairs.is_empty() && repairs.len() <= 4);
        for repair in &repairs {
            assert_eq!(repair.changed.len(), 1);
            assert_eq!(repair.changed[0].range(), 0..request.response.len());
            assert!(!repair.response.contains("<eos>") && repair.response != request.response);
        }
    }
}

#[tokio::test]
async fn a_deadline_and_a_closed_generator_are_failures() {
    let corrector = corrector().await;
    let mut late = request("A large [[green]] triangle.", 4);
    late.deadline = Some(Instant::now());
    let failure = corrector.propose(&late).await.unwrap_err();
    assert_eq!(failure.class, ErrorClass::Deadline);
    corrector.shared.generator.shutdown(Duration::from_secs(5)).await;
    let failure = corrector.propose(&request("A [[green]] one.", 4)).await.unwrap_err();
    assert_eq!(failure.class, ErrorClass::Draining);
}

/// `tests/golden/make_generation.py`.
#[tokio::test]
async fn the_trained_model_writes_what_transformers_and_peft_write() {
    let file = std::fs::read(root().join("tests/golden/generation.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_slice(&file).unwrap();
    let (_, pixels, image_key) = scene();
    for name in ["mini", "mini_half"] {
        let want = &golden[name];
        let list = |field: &str| want[field].as_array().unwrap().clone();
        let sure = list("gaps").iter().take_while(|gap| gap.as_f64().unwrap() >= 1e-3).count();
        let tokens: Vec<u32> = list("tokens").iter().map(|t| t.as_u64().unwrap() as u32).collect();
        assert!(sure > 8, "the golden says too little");
        let generator = generator(want["tau"].as_f64().unwrap()).await;
        let request = Generate {
            pixels: pixels.clone(),
            image_key,
            prompt: preparer().tokenizer().encode_prompt(PROMPT).unwrap(),
            given: Arc::from([]),
            candidates: NonZeroUsize::MIN,
            max_tokens: NonZeroUsize::new(tokens.len()).unwrap(),
            sampling: Sampling::Greedy,
            stop: Stop::default(),
        };
        let written = generator.generate(request, None).await.unwrap().remove(0);
        assert_eq!(written.tokens[..sure], tokens[..sure], "{name}");
        let lexicon = Lexicon::new(preparer().tokenizer(), generator.facts().vocabulary);
        let (text, _) = lexicon.read(&written.tokens).unwrap();
        assert_eq!(text, want["text"].as_str().unwrap(), "{name}");
    }
}
