use std::time::Duration;

use sleuth_chat::scripted::{Answer, Asked, Scripted};
use sleuth_chat::{ChatClient, Endpoint, Limits, Pace};

use super::super::Settings;
use super::*;
use crate::data::Label;

fn record(id: &str, prompt: &str, response: &str) -> Record {
    Record {
        id: id.to_owned(),
        image: format!("images/{}.png", &id[..1]),
        prompt: prompt.to_owned(),
        response: response.to_owned(),
        labels: Vec::new(),
        group_id: None,
        split: None,
    }
}

/// A folder with a caption, a question of the same image, and a record that is not clean.
fn data() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("images")).unwrap();
    fs::write(folder.path().join("images/a.png"), b"png").unwrap();
    let bad = Label { start: 0, end: 1, good: false, taxonomy: None, source: None };
    let records = [
        record("a1", "Describe the image.", "Two cats sit left of a red sofa."),
        record("a2", "What colour is the sofa?", "Red."),
        Record { labels: vec![bad], ..record("a3", "Describe the image.", "Dogs.") },
    ];
    let mut file = File::create(folder.path().join(DATA_FILE)).unwrap();
    write_records(&mut file, &records, 1).unwrap();
    folder
}

fn plan(data: &Path, out: &Path) -> Plan {
    Plan {
        data: data.to_owned(),
        out: out.to_owned(),
        taxonomies: vec![
            Taxonomy::Counting,
            Taxonomy::SpatialRelationship,
            Taxonomy::TextOcr,
            Taxonomy::VisualAttribute,
        ],
        most_records: u64::MAX,
        concurrency: 2,
    }
}

fn perturber(url: &str) -> Perturber {
    let limits = Limits {
        timeout: Duration::from_millis(500),
        attempts: 2,
        backoff: Duration::from_millis(1),
        longest_wait: Duration::from_millis(10),
        ..Limits::default()
    };
    let endpoint = Endpoint::new(url, "scripted", None).unwrap();
    let client = ChatClient::new(endpoint, limits, Pace::per_minute(None)).unwrap();
    Perturber::new(client, Settings { temperature: 0.7, seed: 1 })
}

/// What a good model says: edits, copies where there is nothing to edit, and honest checks.
fn good(asked: &Asked) -> Answer {
    let (system, user) = (asked.message(0), asked.message(1));
    let text = match system {
        s if s.contains("Answer with one word") => {
            // The paraphrase below is found out; a wrong answer is not valid.
            if user.contains("crimson") || s.starts_with("You are told") { "No." } else { "Yes" }
        }
        s if s.starts_with("You turn") => "Blue.",
        s if s.contains("number of exactly one") => "Three cats sit left of a red sofa.",
        s if s.contains("spatial relation") => "\"Two cats sit right of a red sofa.\"",
        s if s.contains("Change how one thing looks") => "Two cats sit left of a crimson sofa.",
        _ => "Two cats sit left of a red sofa.",
    };
    Answer::Text(text.to_owned())
}

fn lines(out: &Path) -> Vec<Record> {
    Records::open(out).unwrap().map(Result::unwrap).collect()
}

fn marked(record: &Record) -> Vec<&str> {
    record.labels.iter().map(|l| &record.response[l.start as usize..l.end as usize]).collect()
}

#[tokio::test]
async fn clean_records_come_out_with_their_checked_edits() {
    let (data, out) = (data(), tempfile::tempdir().unwrap());
    let server = Scripted::start(good).await.unwrap();
    let plan = plan(data.path(), out.path());
    let summary = perturb_folder(&plan, &perturber(&server.url), |done, all| assert!(done <= all))
        .await
        .unwrap();
    assert_eq!((summary.records, summary.not_clean, summary.failed), (2, 1, 0));
    assert_eq!(summary.kept, [("answer", 1), ("counting", 1), ("spatial_relationship", 1)].into());
    assert_eq!(summary.dropped, [("not_different", 1), ("unchanged", 1)].into());
    // Five edits, and a check of each but the copy, at 15 tokens each.
    assert_eq!(summary.usage, Usage { prompt_tokens: 90, completion_tokens: 45, requests: 9 });

    let lines = lines(out.path());
    let ids: Vec<&str> = lines.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["a1", "a1/counting", "a1/spatial_relationship", "a2", "a2/answer"]);
    assert_eq!(marked(&lines[1]), ["Three"]);
    assert_eq!(marked(&lines[2]), ["right"]);
    assert_eq!(marked(&lines[4]), ["Blue"]);
    assert_eq!(lines[1].labels[0].taxonomy.as_deref(), Some("counting"));
    assert_eq!(lines[1].labels[0].source.as_deref(), Some("scripted"));
    assert!(lines[0].is_clean() && lines[0].group_id == lines[1].group_id);
    assert_eq!(fs::read(out.path().join("images/a.png")).unwrap(), b"png");
    // The answer's checker is told the image's caption.
    let told = |a: &Asked| a.message(0).starts_with("You are told");
    let asked = server.asked();
    let check = asked.iter().find(|a| told(a)).unwrap();
    assert!(check.message(1).contains("Two cats sit left of a red sofa."));
}

#[tokio::test]
async fn a_run_that_was_cut_off_goes_on_and_asks_nothing_twice() {
    let (data, out) = (data(), tempfile::tempdir().unwrap());
    let mut answered = 0;
    let dying = Scripted::start(move |asked| {
        answered += 1;
        if answered > 4 { Answer::Status(401, None) } else { good(asked) }
    })
    .await
    .unwrap();
    let plan = plan(data.path(), out.path());
    let error = perturb_folder(&plan, &perturber(&dying.url), |_, _| ()).await.unwrap_err();
    assert!(matches!(error, PerturbError::Chat(ChatError::Status { status: 401, .. })));
    let finished = fs::read_to_string(out.path().join(JOURNAL)).unwrap().lines().count() - 1;
    assert!(finished >= 1);

    let server = Scripted::start(good).await.unwrap();
    let summary = perturb_folder(&plan, &perturber(&server.url), |_, _| ()).await.unwrap();
    assert_eq!(summary.kept.values().sum::<u64>(), 3);
    let edits = |s: &Scripted| {
        let is_edit = |a: &&Asked| !a.message(0).contains("Answer with one word");
        s.asked().iter().filter(is_edit).count()
    };
    assert_eq!(edits(&server), 5 - finished);

    // All is done: nothing is asked, and the folder is the same.
    let before = lines(out.path());
    let idle = Scripted::start(|_| Answer::Drop).await.unwrap();
    let again = perturb_folder(&plan, &perturber(&idle.url), |_, _| ()).await.unwrap();
    assert_eq!((again, idle.asked().len()), (summary, 0));
    assert_eq!(lines(out.path()), before);
}

#[tokio::test]
async fn a_model_that_talks_hedges_or_breaks_spoils_nothing() {
    let (data, out) = (data(), tempfile::tempdir().unwrap());
    let server = Scripted::start(|asked| {
        let (system, user) = (asked.message(0), asked.message(1));
        match system {
            s if s.contains("Answer with one word") && user.contains("Three") => {
                Answer::Text("It depends.".to_owned())
            }
            s if s.contains("Answer with one word") => good(asked),
            s if s.contains("spatial relation") => {
                let talk = "Of course! Here is your caption, in which I changed a relation: no.";
                Answer::Text(talk.to_owned())
            }
            s if s.contains("Change how one thing looks") => Answer::Cut("Two cats".to_owned()),
            s if s.starts_with("You turn") => Answer::Half,
            _ => good(asked),
        }
    })
    .await
    .unwrap();
    let plan = plan(data.path(), out.path());
    let summary = perturb_folder(&plan, &perturber(&server.url), |_, _| ()).await.unwrap();
    assert!(summary.kept.is_empty());
    let expected = [("checker_unclear", 1), ("cut", 1), ("too_large", 1), ("unchanged", 1)];
    assert_eq!((summary.dropped, summary.failed), (expected.into(), 1));
    assert_eq!(lines(out.path()).len(), 2);
}

#[tokio::test]
async fn an_endpoint_that_is_gone_ends_the_run() {
    let (data, out) = (data(), tempfile::tempdir().unwrap());
    let mut many = File::create(data.path().join(DATA_FILE)).unwrap();
    let records: Vec<Record> =
        (0..20).map(|i| record(&format!("a{i}"), "What is it?", "A cat.")).collect();
    write_records(&mut many, &records, 1).unwrap();
    let server = Scripted::start(|_| Answer::Drop).await.unwrap();
    let plan = plan(data.path(), out.path());
    let error = perturb_folder(&plan, &perturber(&server.url), |_, _| ()).await.unwrap_err();
    assert!(matches!(error, PerturbError::Chat(ChatError::Connection(_))), "{error:?}");
    // Ten failures, of two attempts each, and what was under way beside the last.
    assert!(server.asked().len() <= 2 * (MOST_FAILURES + 1));
}

#[tokio::test]
async fn bad_folders_are_refused_before_anything_is_asked() {
    let server = Scripted::start(good).await.unwrap();
    let (folder, out) = (data(), tempfile::tempdir().unwrap());
    let ask = async |data: &Path, out: &Path| {
        perturb_folder(&plan(data, out), &perturber(&server.url), |_, _| ()).await.unwrap_err()
    };
    assert!(matches!(ask(folder.path(), folder.path()).await, PerturbError::SameFolder));
    let twice = [record("a1", "?", "x"), record("a1", "?", "x")];
    let mut file = File::create(folder.path().join(DATA_FILE)).unwrap();
    write_records(&mut file, &twice, 1).unwrap();
    assert!(matches!(ask(folder.path(), out.path()).await, PerturbError::SameId(_)));
    let mut file = File::create(folder.path().join(DATA_FILE)).unwrap();
    write_records(&mut file, &[record("b1", "?", "x")], 1).unwrap();
    assert!(matches!(ask(folder.path(), out.path()).await, PerturbError::Image { .. }));
    assert!(server.asked().is_empty());
}
