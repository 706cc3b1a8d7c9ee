use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::command::{path, picture, run, stderr};

fn write_lines(file: &Path, n: usize) {
    let lines: Vec<String> = (0..n)
        .map(|i| {
            let image = if i % 7 == 3 { Path::new("/no/such.png").to_owned() } else { picture() };
            json!({"id": format!("item-{i}"), "image": image, "response": format!("There are {i} stars.")})
                .to_string()
        })
        .collect();
    fs::write(file, lines.join("\n")).unwrap();
}

fn results(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What does not depend on the run.
fn stable(result: &Value) -> Value {
    let mut result = result.clone();
    if let Some(object) = result.as_object_mut() {
        object.remove("timing_ms");
    }
    result
}

#[test]
fn lines_come_back_in_order_and_failures_alone_fail() {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    write_lines(&input, 30);
    let output = run(&["score", "--jsonl", path(&input), "--out", path(&out)]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    for (i, result) in results(&out).iter().enumerate() {
        assert_eq!(result["id"], format!("item-{i}"));
        if i % 7 == 3 {
            assert_eq!(result["error"]["reason"], "image_missing");
            assert!(result.get("response").is_none());
        } else {
            assert!(result["response"]["reward"].as_f64().unwrap() > 0.0);
        }
    }
}

#[test]
fn a_run_that_was_cut_goes_on_where_it_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.jsonl");
    let (whole, cut) = (folder.path().join("whole.jsonl"), folder.path().join("cut.jsonl"));
    write_lines(&input, 20);
    run(&["score", "--jsonl", path(&input), "--out", path(&whole)]);
    // Eleven lines and a piece of the twelfth, as a killed process leaves them.
    let text = fs::read_to_string(&whole).unwrap();
    let twelfth: usize = text.lines().take(11).map(|l| l.len() + 1).sum();
    fs::write(&cut, &text[..twelfth + 25]).unwrap();
    let refused = run(&["score", "--jsonl", path(&input), "--out", path(&cut)]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--resume"), "{}", stderr(&refused));
    run(&["score", "--jsonl", path(&input), "--out", path(&cut), "--resume"]);
    let (whole, cut) = (results(&whole), results(&cut));
    assert_eq!(whole.len(), cut.len());
    for (a, b) in whole.iter().zip(&cut) {
        assert_eq!(a["id"], b["id"]);
        // Batches form differently, so rewards agree within the stated 1e-4, not in bits.
        match (a["response"]["reward"].as_f64(), b["response"]["reward"].as_f64()) {
            (Some(a), Some(b)) => assert!((a - b).abs() < 1e-4, "{a} {b}"),
            _ => assert_eq!(stable(a), stable(b)),
        }
    }
}

#[test]
fn a_line_that_is_no_item_is_answered_by_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.jsonl");
    fs::write(&input, "{\"id\": 3}\nnot json\n").unwrap();
    let output = run(&["score", "--jsonl", path(&input)]);
    assert_eq!(output.status.code(), Some(3));
    let text = String::from_utf8(output.stdout).unwrap();
    let ids: Vec<Value> =
        text.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["id"].clone()).collect();
    assert_eq!(ids, ["line 1", "line 2"]);
}
