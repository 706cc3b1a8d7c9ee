//! `sleuth perturb` against an endpoint that answers by a script.

use std::fs;

use sleuth_chat::scripted::{Answer, Asked, Scripted};

use crate::command::{json, path, run, stderr, stdout};

/// Negates captions and answers, and calls every edit good.
fn answer(asked: &Asked) -> Answer {
    let user = asked.message(1);
    let text = match asked.message(0) {
        s if s.contains("true, the second was edited") => "yes".to_owned(),
        s if s.contains("Answer with one word") => "no".to_owned(),
        s if s.starts_with("You turn") => "Certainly not.".to_owned(),
        _ => format!("Never {}", user.trim_start_matches("Caption:\n")),
    };
    Answer::Text(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_drawn_folder_is_perturbed_read_and_measured() {
    let server = Scripted::start(answer).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (data, out, key) =
        (folder.path().join("data"), folder.path().join("out"), folder.path().join("key"));
    fs::write(&key, "sk-test\n").unwrap();
    stdout(&["scenes", "--split", "test", "--seed", "3", "--count", "2", "--out", path(&data)]);
    let perturb = [
        "perturb",
        "--data",
        path(&data),
        "--out",
        path(&out),
        "--url",
        &server.url,
        "--chat-model",
        "scripted",
        "--key-file",
        path(&key),
        "--taxonomies",
        "counterfactual,counting",
        "--price-in",
        "2",
        "--price-out",
        "4",
        "--format",
        "json",
    ];
    let summary = json(&perturb);
    // Of each scene's 8 captions and 4 answers half are clean.
    assert_eq!((&summary["records"], &summary["not_clean"]), (&12.into(), &12.into()));
    assert_eq!(summary["kept"]["counting"], 8);
    assert_eq!(summary["usage"]["requests"], server.asked().len());
    let tokens = &summary["usage"];
    let cost = (tokens["prompt_tokens"].as_f64().unwrap() * 2.0
        + tokens["completion_tokens"].as_f64().unwrap() * 4.0)
        / 1e6;
    assert!((summary["cost"].as_f64().unwrap() - cost).abs() < 1e-12 && cost > 0.0);
    assert!(server.asked().iter().all(|a| a.authorization.as_deref() == Some("Bearer sk-test")));

    let report = json(&["eval", "--data", path(&out), "--format", "json"]);
    assert_eq!(report["responses"], 12 + 8 + 8 + summary["kept"]["answer"].as_u64().unwrap());
    assert_eq!(report["by_taxonomy"]["counterfactual"]["responses"], 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_cannot_be_done_is_said_with_the_field_and_without_the_key() {
    let server = Scripted::start(|_| Answer::Status(401, None)).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (data, out, key) =
        (folder.path().join("data"), folder.path().join("out"), folder.path().join("key"));
    fs::write(&key, "sk-secret").unwrap();
    stdout(&["scenes", "--split", "test", "--seed", "3", "--count", "1", "--out", path(&data)]);
    let ask = |url: &str| {
        let output = run(&[
            "perturb",
            "--data",
            path(&data),
            "--out",
            path(&out),
            "--url",
            url,
            "--chat-model",
            "m",
            "--key-file",
            path(&key),
        ]);
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    let refused = ask(&server.url);
    assert!(refused.contains("status 401: check the key"), "{refused}");
    assert!(refused.contains("goes on where this one stopped"), "{refused}");
    let wrong = ask("localhost:8000");
    assert!(wrong.contains("--url"), "{wrong}");
    assert!(!refused.contains("sk-secret") && !wrong.contains("sk-secret"));
}
