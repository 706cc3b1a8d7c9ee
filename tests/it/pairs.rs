//! Pictures that `sleuth scenes` did not draw (`tests/pictures`): is the right text preferred to the
//! wrong one where they differ?

use std::fs;

use serde_json::{Value, json};

use crate::command::{path, root, run, stderr};

/// Pairs of the forty that must be ordered rightly.
const AT_LEAST: usize = 30;

#[derive(serde::Deserialize)]
struct Pair {
    image: String,
    right: String,
    wrong: String,
}

#[test]
fn right_words_are_preferred_on_pictures_drawn_by_other_code() {
    let folder = root().join("tests/pictures");
    let pairs: Vec<Pair> =
        serde_json::from_str(&fs::read_to_string(folder.join("pairs.json")).unwrap()).unwrap();
    assert_eq!(pairs.len(), 40);
    let texts: Vec<[&str; 2]> = pairs.iter().map(|p| [&*p.right, &*p.wrong]).collect();
    let lines: Vec<String> = pairs
        .iter()
        .zip(&texts)
        .flat_map(|(pair, texts)| {
            let image = folder.join(&pair.image);
            texts.map(|text| json!({"id": text, "image": image, "response": text}).to_string())
        })
        .collect();
    let rewards = score(&lines);
    let mut rightly = 0;
    for ((pair, [right, wrong]), scored) in pairs.iter().zip(&texts).zip(rewards.chunks(2)) {
        let [good, bad] =
            [least(&scored[0], changed(right, wrong)), least(&scored[1], changed(wrong, right))];
        rightly += usize::from(good > bad);
        let mark = if good > bad { "yes" } else { "NO" };
        println!("| {} | {right} | {good:.3} | {wrong} | {bad:.3} | {mark} |", pair.image);
    }
    println!("{rightly} of {} rightly", pairs.len());
    assert!(rightly >= AT_LEAST, "{rightly}");
}

/// The contract's object for each line.
fn score(lines: &[String]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let (input, out) = (folder.path().join("in.jsonl"), folder.path().join("out.jsonl"));
    fs::write(&input, lines.join("\n")).unwrap();
    let output = run(&["score", "--jsonl", path(&input), "--out", path(&out)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let scored = fs::read_to_string(out).unwrap();
    scored.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Bytes of `text` between its first and its last word that `other` has otherwise.
fn changed(text: &str, other: &str) -> (u64, u64) {
    let (words, others): (Vec<&str>, Vec<&str>) =
        (text.split(' ').collect(), other.split(' ').collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let before = words.iter().zip(&others).take_while(same).count();
    let after = words.iter().rev().zip(others.iter().rev()).take_while(same).count();
    let start: usize = words[..before].iter().map(|w| w.len() + 1).sum();
    let end = text.len() - words[words.len() - after..].iter().map(|w| w.len() + 1).sum::<usize>();
    (start as u64, end as u64)
}

/// The lowest reward of the tokens that share a byte with a span.
fn least(scored: &Value, (start, end): (u64, u64)) -> f64 {
    let tokens = scored["tokens"].as_array().unwrap().iter();
    let inside =
        tokens.filter(|t| t["start"].as_u64().unwrap() < end && start < t["end"].as_u64().unwrap());
    let least = inside.map(|t| t["reward"].as_f64().unwrap()).fold(f64::INFINITY, f64::min);
    assert!(least.is_finite(), "no token lies in {start}..{end} of {scored}");
    least
}

#[test]
fn what_differs_is_found_between_equal_ends() {
    assert_eq!(changed("There is a red star.", "There is a green star."), (11, 14));
    assert_eq!(changed("a b c", "a x y c"), (2, 3));
    assert_eq!(changed("It is red.", "It is blue."), (6, 10));
}
