//! Every file of `fuzz/corpus` through its target, built as all other tests are.

use std::fs;
use std::io;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use sleuth_fuzz_targets::{TARGETS, Target};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus")
}

/// Runs each file; gives how many there are, and the names of those at which the target panics.
fn run((name, target): Target) -> io::Result<(usize, Vec<String>)> {
    let mut failed = Vec::new();
    let mut files = 0;
    for entry in fs::read_dir(corpus().join(name))? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        files += 1;
        if catch_unwind(|| target(&bytes)).is_err() {
            failed.push(path.display().to_string());
        }
    }
    failed.sort();
    Ok((files, failed))
}

#[test]
fn every_saved_input_keeps_what_its_target_promises() {
    for target in TARGETS {
        let (files, failed) = run(target).unwrap();
        assert!(files >= 10, "{}: only {files} files", target.0);
        assert!(failed.is_empty(), "{}: {failed:#?}", target.0);
    }
}

#[test]
fn every_folder_of_the_corpus_has_a_target() {
    let mut folders: Vec<String> = fs::read_dir(corpus())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    folders.sort();
    assert_eq!(folders, TARGETS.map(|(name, _)| name));
}
