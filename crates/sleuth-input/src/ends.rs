//! The tokens that end what a model writes, by its `generation_config.json`.

use std::path::Path;

use serde::Deserialize;

use crate::FolderError;

#[derive(Deserialize)]
struct File {
    #[serde(default)]
    eos_token_id: Option<Ids>,
}

/// One or many, as transformers has it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Ids {
    One(u32),
    Many(Vec<u32>),
}

/// The ids that the folder's file names; none where there is no file, or it names none.
///
/// # Errors
/// [`FolderError::Generation`] where the file is no JSON of that shape.
pub(crate) fn from_folder(folder: &Path) -> Result<Vec<u32>, FolderError> {
    let path = folder.join("generation_config.json");
    if !path.exists() {
        return Ok(Vec::new());
    }
    let file: File =
        serde_json::from_slice(&crate::prepare::read(&path)?).map_err(FolderError::Generation)?;
    Ok(match file.eos_token_id {
        None => Vec::new(),
        Some(Ids::One(id)) => vec![id],
        Some(Ids::Many(ids)) => ids,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_many_or_none_are_read_and_else_the_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert!(from_folder(folder.path()).unwrap().is_empty());
        let of = |text: &str| {
            std::fs::write(folder.path().join("generation_config.json"), text).unwrap();
            from_folder(folder.path())
        };
        assert_eq!(of(r#"{"eos_token_id": 1, "top_p": 0.9}"#).unwrap(), [1]);
        assert_eq!(of(r#"{"eos_token_id": [7, 8, 9]}"#).unwrap(), [7, 8, 9]);
        assert!(of(r#"{"eos_token_id": null}"#).unwrap().is_empty());
        for bad in [r#"{"eos_token_id": -1}"#, r#"{"eos_token_id": "x"}"#, "no JSON"] {
            let error = of(bad).unwrap_err().to_string();
            assert!(error.contains("generation_config.json"), "{error}");
        }
    }
}
