//! Preference pairs as TRL's DPO trainer reads them.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, absolute};

use anyhow::{Context, Result};
use serde::Serialize;
use sleuth_core::Corrected;

use crate::output;

/// A repaired response and the one it replaces, in the columns that `DataCollatorForVisionPreference`
/// of TRL 1.16 takes: conversational, contents as strings, to which it adds the image itself.
#[derive(Debug, Serialize)]
pub(super) struct Pair<'a> {
    images: [String; 1],
    prompt: [Message<'a>; 1],
    chosen: [Message<'a>; 1],
    rejected: [Message<'a>; 1],
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: &'static str,
    content: &'a str,
}

/// A file of pairs.
pub(super) struct PairsFile {
    out: BufWriter<File>,
}

// === impl Pair ===

impl<'a> Pair<'a> {
    /// `None` where no repair was kept. The image's path is made absolute, so that the file can be
    /// read from anywhere.
    pub(super) fn of(
        image: &Path,
        prompt: &'a str,
        original: &'a str,
        corrected: &'a Corrected,
    ) -> Result<Option<Self>> {
        if corrected.kept == 0 {
            return Ok(None);
        }
        Self::new(image, prompt, &corrected.response, original).map(Some)
    }

    pub(super) fn new(
        image: &Path,
        prompt: &'a str,
        chosen: &'a str,
        rejected: &'a str,
    ) -> Result<Self> {
        let image = absolute(image).with_context(|| image.display().to_string())?;
        let image = image.to_str().context("an image's path is not UTF-8")?.to_owned();
        let said = |role, content| [Message { role, content }];
        Ok(Self {
            images: [image],
            prompt: said("user", prompt),
            chosen: said("assistant", chosen),
            rejected: said("assistant", rejected),
        })
    }
}

// === impl PairsFile ===

impl PairsFile {
    pub(super) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("--pairs {}", path.display()))?;
        Ok(Self { out: BufWriter::new(file) })
    }

    pub(super) fn add(&mut self, pair: Option<Pair<'_>>) -> Result<()> {
        pair.map_or(Ok(()), |pair| output::json_line(&mut self.out, &pair))
    }

    pub(super) fn flush(&mut self) -> Result<()> {
        Ok(self.out.flush()?)
    }
}
