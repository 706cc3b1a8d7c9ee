use bytes::Bytes;
use sleuth_chat::ApiKey;
use sleuth_chat::scripted::{Answer, Scripted};
use sleuth_core::{ByteSpan, GuidanceLevel, Pixels};

use super::*;

fn settings() -> EndpointSettings {
    let limits = Limits {
        timeout: Duration::from_millis(300),
        attempts: 2,
        backoff: Duration::from_millis(1),
        longest_wait: Duration::from_millis(10),
        reply_bytes: 32 << 10,
    };
    EndpointSettings { limits, ..EndpointSettings::default() }
}

const RESPONSE: &str = "A red heart.";

fn request(candidates: usize) -> RepairRequest {
    let data = Bytes::from_static(b"\x89PNG");
    RepairRequest {
        image: EncodedImage { blake3: *blake3::hash(&data).as_bytes(), data },
        pixels: Pixels::try_new(1, 1, vec![0.0; 3].into()).unwrap(),
        image_key: [0; 32],
        prompt: "What is there?".to_owned(),
        response: RESPONSE.to_owned(),
        guidance: GuidanceLevel::Token,
        flagged: vec![ByteSpan::try_new(2, 5).unwrap()],
        sentences: vec![ByteSpan::try_new(0, 12).unwrap()],
        candidates,
        seed: 5,
        deadline: None,
    }
}

fn corrector(url: &str, settings: EndpointSettings) -> EndpointCorrector {
    let endpoint = Endpoint::new(url, "tiny", ApiKey::new("sk-1")).unwrap();
    EndpointCorrector::new(endpoint, settings).unwrap()
}

/// What comes of one request to a server that gives these answers in turn.
async fn ask(answers: Vec<Answer>, candidates: usize) -> Result<Vec<String>, Failure> {
    let mut answers = answers.into_iter();
    let server = Scripted::start(move |_| answers.next().unwrap_or(Answer::Drop)).await.unwrap();
    let repairs = corrector(&server.url, settings()).propose(&request(candidates)).await?;
    Ok(repairs.into_iter().map(|repair| repair.response).collect())
}

fn text(text: &str) -> Answer {
    Answer::Text(text.to_owned())
}

#[tokio::test]
async fn each_candidate_is_a_request_with_the_image_the_prompt_and_a_seed() {
    let server = Scripted::start(|asked| text(&format!("Heart {}.", asked.body["seed"]))).await;
    let server = server.unwrap();
    let repairs = corrector(&server.url, settings()).propose(&request(3)).await.unwrap();
    let responses: Vec<&str> = repairs.iter().map(|r| r.response.as_str()).collect();
    assert_eq!(responses, ["Heart 5.", "Heart 6.", "Heart 7."]);
    assert_eq!(repairs[0].changed, [ByteSpan::try_new(0, 11).unwrap()]);
    for asked in server.asked() {
        let parts = &asked.body["messages"][0]["content"];
        let url = parts[0]["image_url"]["url"].as_str().unwrap();
        assert_eq!(url, "data:image/png;base64,iVBORw==");
        let prompt = parts[1]["text"].as_str().unwrap();
        assert!(prompt.contains(RESPONSE) && prompt.contains("Doubtful words: \"red\""));
        let greedy = asked.body["seed"] == 5;
        assert_eq!(asked.body["temperature"].as_f64().unwrap() == 0.0, greedy);
        assert_eq!(asked.body["max_tokens"], 70);
        assert_eq!(asked.authorization.as_deref(), Some("Bearer sk-1"));
    }
    let blind = EndpointSettings { with_image: false, ..settings() };
    corrector(&server.url, blind).propose(&request(1)).await.unwrap();
    assert!(server.asked()[3].message(0).contains(RESPONSE), "text alone is a string");
}

#[tokio::test]
async fn what_models_put_around_a_reply_is_dropped() {
    let good = "A white heart.";
    for reply in [
        good.to_owned(),
        format!("\n {good} \n"),
        format!("\"{good}\""),
        format!("Corrected response: {good}"),
        format!("corrected response:\n\"{good}\""),
    ] {
        assert_eq!(ask(vec![text(&reply)], 1).await.unwrap(), [good], "{reply}");
    }
    assert_eq!(bare("\"A\" or \"B\"", RESPONSE), "\"A\" or \"B\"");
    assert_eq!(bare("\"A\"", "\"B\""), "\"A\"");
}

#[tokio::test]
async fn a_misbehaving_endpoint_is_asked_again_and_then_a_failure_with_a_reason() {
    let misbehaving = [
        (Answer::Silence(Duration::from_secs(5)), "no whole reply within"),
        (Answer::Half, "no reply"),
        (Answer::Drop, "no reply"),
        (Answer::Body("{\"choices\": 3}".to_owned()), "not its JSON"),
        (Answer::Body("<html>".to_owned()), "not its JSON"),
        (text(" "), "`message.content` is empty"),
        (Answer::Status(429, Some(1)), "status 429"),
        (Answer::Status(500, None), "status 500"),
        (Answer::Endless, "longer than 32768 bytes"),
        (Answer::Cut("An essay that".to_owned()), "cut at its limit"),
    ];
    for (answer, why) in misbehaving {
        let failure = ask(vec![answer.clone(), answer.clone()], 1).await.unwrap_err();
        assert_eq!(failure.class, ErrorClass::ModelFailure);
        assert_eq!(failure.reason, Reason::CORRECTOR_FAILED);
        assert!(failure.detail.contains(why), "{answer:?}: {}", failure.detail);
        assert!(!failure.detail.contains("sk-1") && !failure.detail.contains("heart"));
        if !matches!(answer, Answer::Cut(_)) {
            let good = ask(vec![answer.clone(), text("A heart.")], 1).await;
            assert_eq!(good.unwrap(), ["A heart."], "{answer:?}");
        }
    }
    let refused = ask(vec![Answer::Status(401, None), text("x")], 1).await.unwrap_err();
    assert!(refused.detail.contains("check the key"), "not tried again");
}

#[tokio::test]
async fn one_good_candidate_is_enough() {
    let server = Scripted::start(|asked| {
        if asked.body["seed"] == 6 { text("A heart.") } else { Answer::Status(400, None) }
    });
    let server = server.await.unwrap();
    let repairs = corrector(&server.url, settings()).propose(&request(3)).await.unwrap();
    assert_eq!(repairs.len(), 1);
}

#[tokio::test]
async fn only_loopback_and_named_hosts_are_asked() {
    let endpoint = |url| Endpoint::new(url, "m", None).unwrap();
    for url in ["http://example.com/v1", "http://10.0.0.1/v1", "https://[2001:db8::1]/v1"] {
        let refused = EndpointCorrector::new(endpoint(url), settings()).unwrap_err();
        assert!(matches!(&refused, EndpointRefused::Host(_)), "{url}");
        assert!(refused.to_string().contains("is not allowed"));
    }
    let allowed_hosts = vec!["Example.com".to_owned(), "2001:db8::1".to_owned()];
    let settings = EndpointSettings { allowed_hosts, ..settings() };
    for url in ["http://example.com/v1", "https://[2001:db8::1]/v1", "http://127.0.0.1:1/v1"] {
        assert!(EndpointCorrector::new(endpoint(url), settings.clone()).is_ok(), "{url}");
    }
    let near = EndpointCorrector::new(endpoint("http://sub.example.com/v1"), settings);
    assert!(near.is_err());
}

#[tokio::test]
async fn requests_under_way_are_bounded() {
    let server = Scripted::start(|_| text("A heart.")).await.unwrap();
    let settings = EndpointSettings { concurrency: 1, ..settings() };
    let corrector = corrector(&server.url, settings);
    let repairs = corrector.propose(&request(4)).await.unwrap();
    assert_eq!((repairs.len(), server.asked().len()), (4, 4));
    assert_eq!(corrector.slots.available_permits(), 1, "every slot came back");
}
