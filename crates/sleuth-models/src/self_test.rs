use std::fs;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use sleuth_core::{SelfTest, SelfTestCase, Tolerance};

use crate::LoadError;

/// `self_test.json` of a model or adapter folder.
pub const SELF_TEST_FILE: &str = "self_test.json";

/// Largest file that is read.
const MAX_BYTES: u64 = 16 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    reference: String,
    tolerance: FileTolerance,
    cases: Vec<FileCase>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileTolerance {
    absolute: f32,
    relative: f32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileCase {
    /// Base64.
    image: String,
    #[serde(default)]
    prompt: String,
    response: String,
    logits: Vec<f32>,
}

/// Reads a folder's golden rewards; `None` where it has no such file.
///
/// # Errors
/// The file cannot be read, is over 16 MiB, or does not hold at least one case with at least one
/// finite logit and a tolerance that is not negative.
pub fn read_self_test(folder: &Path) -> Result<Option<SelfTest>, LoadError> {
    let path = folder.join(SELF_TEST_FILE);
    let bytes = match fs::metadata(&path).map(|m| m.len()) {
        Ok(length) if length > MAX_BYTES => {
            return Err(LoadError::malformed(path, format!("is over {MAX_BYTES} bytes")));
        }
        Ok(_) => fs::read(&path),
        Err(error) => Err(error),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(LoadError::Read { path, source }),
    };
    parse(&bytes).map(Some).map_err(|problem| LoadError::malformed(path, problem))
}

fn parse(bytes: &[u8]) -> Result<SelfTest, String> {
    let File { reference, tolerance, cases } =
        serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    let FileTolerance { absolute, relative } = tolerance;
    let usable = |t: f32| t.is_finite() && t >= 0.0;
    if !usable(absolute) || !usable(relative) {
        return Err("`tolerance` must hold finite numbers that are not negative".to_owned());
    }
    if cases.is_empty() {
        return Err("`cases` is empty".to_owned());
    }
    let cases = cases.into_iter().enumerate().map(|(at, case)| case.checked(at));
    Ok(SelfTest {
        reference,
        tolerance: Tolerance { absolute, relative },
        cases: cases.collect::<Result<_, _>>()?,
    })
}

// === impl FileCase ===

impl FileCase {
    fn checked(self, at: usize) -> Result<SelfTestCase, String> {
        let Self { image, prompt, response, logits } = self;
        let image = STANDARD.decode(image).map_err(|e| format!("`cases[{at}].image`: {e}"))?;
        if logits.is_empty() || !logits.iter().all(|x| x.is_finite()) {
            return Err(format!("`cases[{at}].logits` must hold finite numbers"));
        }
        Ok(SelfTestCase { image, prompt, response, logits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"reference": "by hand", "tolerance": {"absolute": 0.001, "relative": 0},
        "cases": [{"image": "AAEC", "response": "a", "logits": [1.5]}]}"#;

    #[test]
    fn a_whole_file_is_read() {
        let test = parse(GOOD.as_bytes()).unwrap();
        assert_eq!(test.cases[0].image, [0, 1, 2]);
        assert_eq!(test.cases[0].logits, [1.5]);
        assert_eq!(test.reference, "by hand");
    }

    #[test]
    fn a_folder_without_one_has_none() {
        assert_eq!(read_self_test(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }

    #[test]
    fn what_proves_nothing_is_refused_and_named() {
        for (from, to, named) in [
            ("[1.5]", "[]", "cases[0].logits"),
            ("0.001", "-1", "tolerance"),
            ("AAEC", "*", "cases[0].image"),
            ("\"response\"", "\"respond\"", "respond"),
        ] {
            let problem = parse(GOOD.replace(from, to).as_bytes()).unwrap_err();
            assert!(problem.contains(named), "{problem}");
        }
        let none = r#"{"reference": "", "tolerance": {"absolute": 0, "relative": 0}, "cases": []}"#;
        assert!(parse(none.as_bytes()).unwrap_err().contains("cases"));
    }
}
