use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use super::Label;

/// One line of `data.jsonl`: a response, and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Unique in the folder.
    pub id: String,
    /// Path of the image, relative to the folder, with `/` and without `..`.
    pub image: String,
    /// What was asked.
    pub prompt: String,
    /// What was answered; not empty.
    pub response: String,
    /// Spans of the response; what they leave uncovered is good.
    #[serde(default)]
    pub labels: Vec<Label>,
    /// Records of one group share image and prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    /// Such as `train`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
}

/// What is wrong with a record. Names fields, never their content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRecord {
    /// A field that must hold text is empty.
    #[error("`{field}` is empty")]
    Empty {
        /// Which.
        field: &'static str,
    },
    /// The image path leaves the folder or is not portable.
    #[error("`image` must be a relative path with `/`, without `..`")]
    ImagePath,
    /// A label ends where it starts or before.
    #[error("`labels[{index}]` is empty: start {start}, end {end}")]
    EmptySpan {
        /// Which label.
        index: usize,
        /// Its start.
        start: u32,
        /// Its end.
        end: u32,
    },
    /// A label reaches beyond the response.
    #[error("`labels[{index}]` ends at byte {end} of a response of {length}")]
    SpanOutside {
        /// Which label.
        index: usize,
        /// Its end.
        end: u32,
        /// Bytes of the response.
        length: usize,
    },
    /// A label starts or ends inside a character.
    #[error("`labels[{index}]` cuts a character of the response")]
    SpanCutsCharacter {
        /// Which label.
        index: usize,
    },
}

// === impl Record ===

impl Record {
    /// Checks paths and spans.
    pub fn validate(&self) -> Result<(), InvalidRecord> {
        for (field, text) in
            [("id", &self.id), ("image", &self.image), ("response", &self.response)]
        {
            if text.is_empty() {
                return Err(InvalidRecord::Empty { field });
            }
        }
        if !is_inside(&self.image) {
            return Err(InvalidRecord::ImagePath);
        }
        self.labels
            .iter()
            .enumerate()
            .try_for_each(|(index, label)| check_span(&self.response, index, label))
    }

    /// Whether all of the response is good.
    pub fn is_clean(&self) -> bool {
        self.labels.iter().all(|l| l.good)
    }
}

/// Whether a path stays in the folder on every system: no root, drive, `..`, `.` or backslash.
fn is_inside(path: &str) -> bool {
    !path.contains(['\\', ':', '\0'])
        && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}

fn check_span(response: &str, index: usize, label: &Label) -> Result<(), InvalidRecord> {
    let Label { start, end, .. } = *label;
    let length = response.len();
    if start >= end {
        return Err(InvalidRecord::EmptySpan { index, start, end });
    }
    if end as usize > length {
        return Err(InvalidRecord::SpanOutside { index, end, length });
    }
    if response.is_char_boundary(start as usize) && response.is_char_boundary(end as usize) {
        Ok(())
    } else {
        Err(InvalidRecord::SpanCutsCharacter { index })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(image: &str, response: &str, spans: &[(u32, u32)]) -> Record {
        let label = |&(start, end)| Label { start, end, good: false, taxonomy: None, source: None };
        Record {
            id: "a".to_owned(),
            image: image.to_owned(),
            prompt: String::new(),
            response: response.to_owned(),
            labels: spans.iter().map(label).collect(),
            group_id: None,
            split: None,
        }
    }

    #[test]
    fn spans_lie_inside_the_response_and_on_characters() {
        let check = |spans: &[(u32, u32)]| record("i.png", "aé", spans).validate();
        assert_eq!(check(&[(0, 1), (1, 3)]), Ok(()));
        assert_eq!(check(&[(1, 1)]), Err(InvalidRecord::EmptySpan { index: 0, start: 1, end: 1 }));
        assert_eq!(
            check(&[(0, 1), (1, 4)]),
            Err(InvalidRecord::SpanOutside { index: 1, end: 4, length: 3 })
        );
        assert_eq!(check(&[(0, 2)]), Err(InvalidRecord::SpanCutsCharacter { index: 0 }));
    }

    #[test]
    fn image_paths_stay_in_the_folder() {
        for path in ["images/a.png", "a.jpg"] {
            assert_eq!(record(path, "x", &[]).validate(), Ok(()), "{path}");
        }
        for path in ["/a.png", "../a.png", "images/../../a.png", "c:\\a.png", "./a.png"] {
            assert_eq!(record(path, "x", &[]).validate(), Err(InvalidRecord::ImagePath), "{path}");
        }
        assert_eq!(record("", "x", &[]).validate(), Err(InvalidRecord::Empty { field: "image" }));
    }
}
