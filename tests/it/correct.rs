//! `sleuth correct` and `Correct` of a server, with the trained model and an endpoint that answers by
//! a script.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sleuth_chat::scripted::{Answer, Asked, Scripted};
use sleuth_client::{Client, CorrectReply};
use sleuth_core::{CorrectRequest, CorrectorKind, Proposal, ScoreRequest};

use crate::command::{json as one_json, path, picture, run, stderr, stdout};
use crate::server::Server;

/// The scene's heart is white.
const WRONG: &str =
    "The blue triangle is on the left. The large heart is red. There is a triangle.";
const RIGHT: &str =
    "The blue triangle is on the left. The large heart is white. There is a triangle.";

fn prompt(asked: &Asked) -> String {
    let content = &asked.body["messages"][0]["content"];
    let text = content.as_str().or(content[1]["text"].as_str());
    text.unwrap_or_default().to_owned()
}

async fn repairing() -> Scripted {
    Scripted::start(|asked| {
        let repaired = if prompt(asked).contains(WRONG) { RIGHT } else { "Something else." };
        Answer::Text(repaired.to_owned())
    })
    .await
    .unwrap()
}

fn endpoint<'a>(url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let named = ["--corrector", "endpoint", "--endpoint-url", url, "--endpoint-model", "scripted"];
    [&named, more].concat()
}

/// `sleuth correct` of the scene's wrong description, with more arguments.
fn correct<'a>(image: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    [&["correct", "--image", path(image), "--response", WRONG], more].concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_word_is_repaired_shown_and_written_as_a_pair() {
    let server = repairing().await;
    let folder = tempfile::tempdir().unwrap();
    let (pairs, image) = (folder.path().join("pairs.jsonl"), picture());
    let asked = endpoint(&server.url, &["--format", "json", "--events", "--pairs", path(&pairs)]);
    let text = stdout(&correct(&image, &asked));
    let lines: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let events: Vec<&str> = lines.iter().filter_map(|line| line["event"].as_str()).collect();
    assert_eq!(events, ["scored", "proposal", "rescored"]);
    assert_eq!(lines[0]["words"][0]["text"], "red");
    let end = &lines[3];
    assert_eq!(
        (&end["response"], &end["kept"], &end["rounds"]),
        (&json!(RIGHT), &json!(1), &json!(1))
    );
    let change = &end["changes"][0];
    assert_eq!(
        (&change["before"]["text"], &change["after"]["text"]),
        (&json!("red"), &json!("white"))
    );
    assert!(end["reward"].as_f64() > end["reward_before"].as_f64());
    assert_eq!(end["attempts"][0]["kept"], true);
    let url = &server.asked()[0].body["messages"][0]["content"][0]["image_url"]["url"];
    assert!(url.as_str().unwrap().starts_with("data:image/png;base64,"));
    assert!(prompt(&server.asked()[0]).contains("Doubtful words: \"red\""));

    let pair: Value = serde_json::from_str(&fs::read_to_string(&pairs).unwrap()).unwrap();
    let mut columns: Vec<&String> = pair.as_object().unwrap().keys().collect();
    columns.sort();
    assert_eq!(columns, ["chosen", "images", "prompt", "rejected"]);
    assert_eq!(pair["chosen"], json!([{"role": "assistant", "content": RIGHT}]));
    assert_eq!(pair["rejected"], json!([{"role": "assistant", "content": WRONG}]));
    assert_eq!(pair["prompt"][0]["role"], "user");
    assert!(Path::new(pair["images"][0].as_str().unwrap()).is_absolute());

    let shown = stdout(&correct(&image, &endpoint(&server.url, &[])));
    assert!(shown.contains("The large heart is [-red-]{+white+}."), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_are_corrected_in_order_and_a_cut_run_goes_on_with_its_pairs() {
    let server = repairing().await;
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let (input, whole, cut) = (file("in.jsonl"), file("whole.jsonl"), file("cut.jsonl"));
    let lines: Vec<String> = (0..12)
        .map(|i| {
            let image = if i % 5 == 4 { Path::new("/no/such.png").to_owned() } else { picture() };
            let response = if i % 2 == 0 { WRONG } else { RIGHT };
            json!({"id": format!("item-{i}"), "image": image, "response": response}).to_string()
        })
        .collect();
    fs::write(&input, lines.join("\n")).unwrap();
    let go = |out: &Path, pairs: &Path, more: &[&str]| {
        let base = ["correct", "--jsonl", path(&input), "--out", path(out), "--pairs", path(pairs)];
        run(&[&base, &endpoint(&server.url, more)[..]].concat())
    };
    let (pairs, again) = (file("pairs.jsonl"), file("again.jsonl"));
    let output = go(&whole, &pairs, &[]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    let text = fs::read_to_string(&whole).unwrap();
    for (i, line) in text.lines().enumerate() {
        let result: Value = serde_json::from_str(line).unwrap();
        assert_eq!(result["id"], format!("item-{i}"));
        if i % 5 == 4 {
            assert_eq!(result["error"]["reason"], "image_missing");
        } else {
            assert_eq!(
                (&result["response"], &result["kept"]),
                (&json!(RIGHT), &json!((i + 1) % 2))
            );
        }
    }
    let seventh: usize = text.lines().take(7).map(|line| line.len() + 1).sum();
    fs::write(&cut, &text[..seventh + 20]).unwrap();
    assert_eq!(go(&cut, &again, &["--resume"]).status.code(), Some(3));
    assert_eq!(fs::read_to_string(&cut).unwrap().lines().count(), 12);
    let pairs = fs::read_to_string(&pairs).unwrap();
    assert_eq!((pairs.lines().count(), &pairs), (5, &fs::read_to_string(&again).unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_wrong_is_said_and_leaves_the_response() {
    let image = picture();
    let busy = Scripted::start(|_| Answer::Status(500, None)).await.unwrap();
    let asked = endpoint(&busy.url, &["--endpoint-attempts", "1", "--format", "json"]);
    let output = run(&correct(&image, &asked));
    assert_eq!(output.status.code(), Some(3));
    let end: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&end["response"], &end["kept"]), (&json!(WRONG), &json!(0)));
    assert_eq!(end["stopped"]["reason"], "corrector_failed");

    let far = run(&correct(&image, &endpoint("http://example.com/v1", &[])));
    assert_eq!(far.status.code(), Some(1));
    assert!(stderr(&far).contains("--endpoint-allow"), "{}", stderr(&far));

    let unset = run(&correct(&image, &["--corrector", "endpoint", "--format", "json"]));
    assert_eq!(unset.status.code(), Some(1));
    let refused: Value = serde_json::from_slice(&unset.stdout).unwrap();
    assert_eq!(refused["error"]["reason"], "not_offered");
    assert_eq!(refused["error"]["field"], "corrector");
}

#[test]
fn guidance_prints_the_prompt_for_another_policy() {
    let image = picture();
    let end = one_json(&correct(&image, &["--corrector", "guidance", "--format", "json"]));
    assert_eq!((&end["response"], &end["kept"]), (&json!(WRONG), &json!(0)));
    assert!(end["guidance"].as_str().unwrap().contains("Doubtful words: \"red\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_corrects_over_its_stream() {
    let endpoint = repairing().await;
    let server =
        Server::start(None, &["--endpoint-url", &endpoint.url, "--endpoint-model", "scripted"]);
    let client = Client::connect(server.url()).await.unwrap();
    let image = bytes::Bytes::from(fs::read(picture()).unwrap());
    let request = |corrector, response: &str| CorrectRequest {
        corrector,
        ..CorrectRequest::new(ScoreRequest::new(image.clone(), response))
    };
    let mut correcting = client.correct(request(CorrectorKind::Endpoint, WRONG)).await.unwrap();
    let mut seen = Vec::new();
    while let Some(reply) = correcting.next().await.unwrap() {
        seen.push(reply);
    }
    let [
        CorrectReply::Scored { words, .. },
        CorrectReply::Proposed(proposed),
        CorrectReply::Rescored { dropped: None, .. },
        CorrectReply::Final(end),
    ] = &seen[..]
    else {
        panic!("{seen:?}");
    };
    assert_eq!(&WRONG[words[0].range()], "red");
    assert!(matches!(&proposed.proposal, Proposal::Repair { response, .. } if response == RIGHT));
    let used = end.outcome.as_ref().unwrap();
    assert_eq!((used.response.as_str(), used.kept), (RIGHT, 1));
    assert!(used.reward >= used.reward_before + 0.01);

    let fine = client.correct(request(CorrectorKind::Endpoint, RIGHT)).await.unwrap();
    assert_eq!(fine.finished().await.unwrap().outcome.unwrap().kept, 0);
    assert_eq!(endpoint.asked().len(), 1, "what is fine costs no request");
    let (_, metrics) = server.page("/metrics");
    let counted = r#"sleuth_item_seconds_count{kind="correct",outcome="valid"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_of_scenes_is_judged_by_what_is_true() {
    let folder = tempfile::tempdir().unwrap();
    let (data, report) = (folder.path().join("data"), folder.path().join("report.md"));
    stdout(&["scenes", "--split", "test", "--seed", "3", "--count", "2", "--out", path(&data)]);
    // Knows each false caption's clean one no better than to count anything.
    let server = Scripted::start(|_| Answer::Text("There are six objects.".to_owned()));
    let server = server.await.unwrap();
    let base = ["correct", "--data", path(&data), "--report", path(&report), "--format", "json"];
    let figures =
        one_json(&[&base, &endpoint(&server.url, &["--levels", "token,naive"])[..]].concat());
    let mut levels: Vec<&String> = figures.as_object().unwrap().keys().collect();
    levels.sort();
    assert_eq!(levels, ["naive", "token"]);
    let token = &figures["token"];
    assert_eq!(token["responses"], 24);
    assert!(token["tried"].as_u64().unwrap() > 0 && token["false_before"].as_u64() >= Some(12));
    assert_eq!(token["stopped"], 0);
    assert!(fs::read_to_string(&report).unwrap().contains("| naive | 24 |"));
}
