use super::*;
use crate::scripted::{Answer, Scripted};
use crate::{ApiKey, Message, Role};

fn limits() -> Limits {
    Limits {
        timeout: Duration::from_millis(500),
        attempts: 3,
        backoff: Duration::from_millis(1),
        longest_wait: Duration::from_millis(20),
        reply_bytes: 64 << 10,
    }
}

fn request() -> Request {
    let message = Message::new(Role::User, "Hello?");
    Request { messages: vec![message], max_tokens: 20, temperature: 0.0, seed: 3 }
}

/// The result of one call to a server that gives these answers in turn, and the requests it saw.
async fn call(answers: Vec<Answer>) -> (Result<Completion, ChatError>, usize) {
    let mut answers = answers.into_iter();
    let server = Scripted::start(move |_| answers.next().unwrap_or(Answer::Drop)).await.unwrap();
    let endpoint = Endpoint::new(&server.url, "tiny", None).unwrap();
    let client = ChatClient::new(endpoint, limits(), Pace::per_minute(None)).unwrap();
    let result = client.complete(&request()).await;
    (result, server.asked().len())
}

fn text(text: &str) -> Answer {
    Answer::Text(text.to_owned())
}

#[tokio::test]
async fn a_request_carries_model_messages_and_key() {
    let server = Scripted::start(|_| text("Yes.")).await.unwrap();
    let endpoint = Endpoint::new(&server.url, "tiny", ApiKey::new("sk-1")).unwrap();
    let client = ChatClient::new(endpoint, limits(), Pace::per_minute(None)).unwrap();
    let completion = client.complete(&request()).await.unwrap();
    assert_eq!((completion.text.as_str(), completion.is_cut), ("Yes.", false));
    let [asked] = &server.asked()[..] else { panic!("one request") };
    assert_eq!(asked.authorization.as_deref(), Some("Bearer sk-1"));
    assert_eq!(asked.body["model"], "tiny");
    assert_eq!(asked.body["seed"], 3);
    assert_eq!(asked.message(0), "Hello?");
}

#[tokio::test]
async fn what_may_pass_is_tried_again_and_counted() {
    let passing = [
        Answer::Status(429, Some(1)),
        Answer::Status(500, None),
        Answer::Drop,
        Answer::Half,
        Answer::Endless,
        Answer::Silence(Duration::from_secs(5)),
        Answer::Body("<html>busy</html>".to_owned()),
        Answer::Body("{\"choices\": []}".to_owned()),
    ];
    for first in passing {
        let shown = format!("{first:?}");
        let (result, asked) = call(vec![first, text("A cat.")]).await;
        let completion = result.unwrap_or_else(|e| panic!("{shown}: {e}"));
        assert_eq!((completion.text.as_str(), completion.usage.requests), ("A cat.", 2), "{shown}");
        assert_eq!(asked, 2, "{shown}");
    }
}

#[tokio::test]
async fn attempts_end() {
    let (result, asked) = call(vec![Answer::Status(503, None); 9]).await;
    assert_eq!(result, Err(ChatError::Status { status: 503, retry_after: None }));
    assert_eq!(asked, 3);
    let (result, asked) = call(vec![Answer::Endless; 9]).await;
    assert_eq!((result, asked), (Err(ChatError::TooLong(64 << 10)), 3));
    let (result, _) = call(vec![Answer::Silence(Duration::from_secs(9)); 9]).await;
    assert_eq!(result, Err(ChatError::Timeout(limits().timeout)));
}

#[tokio::test]
async fn a_refusal_is_not_repeated_and_a_redirect_not_followed() {
    for status in [400, 401, 404, 307] {
        let (result, asked) = call(vec![Answer::Status(status, None), text("x")]).await;
        assert_eq!(result, Err(ChatError::Status { status, retry_after: None }));
        assert_eq!(asked, 1);
    }
}

#[tokio::test]
async fn a_closed_port_is_an_error_without_the_address() {
    let endpoint = Endpoint::new("http://127.0.0.1:9/v1", "tiny", None).unwrap();
    let limits = Limits { attempts: 1, ..limits() };
    let client = ChatClient::new(endpoint, limits, Pace::per_minute(None)).unwrap();
    let error = client.complete(&request()).await.unwrap_err();
    assert!(matches!(error, ChatError::Connection(_)), "{error}");
}
