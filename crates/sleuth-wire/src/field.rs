/// Where in a request a failed part stands; puts fields in full as dotted paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The message itself.
    Request,
    /// `score` of a stream's message.
    Score,
    /// `open` of a stream's message.
    Open,
    /// `append` of a stream's message.
    Append,
    /// `close` of a stream's message.
    Close,
    /// `item` of a correction stream's message.
    Correct,
    /// The header of an image that is put.
    Header,
    /// An item of a batch, from 0.
    Batch(usize),
}

// === impl Place ===

impl Place {
    /// The full path of `field`, which is relative to an item or names a part of a
    /// [`ScoreRequest`](sleuth_core::ScoreRequest), such as `image`.
    pub fn path(self, field: &str) -> String {
        match self {
            Self::Request => field.to_owned(),
            Self::Score => format!("score.{}", of_item(field)),
            Self::Batch(index) => format!("items[{index}].{}", of_item(field)),
            // These messages are not items: `open` is a context, `append` has a key, `close` is one.
            Self::Open => format!("open.{}", field.strip_prefix("context.").unwrap_or(field)),
            Self::Append => format!("append.{}", field.strip_prefix("context.").unwrap_or(field)),
            Self::Header => format!("header.{field}"),
            Self::Correct if of_correction(field) => format!("item.{field}"),
            Self::Correct => format!("item.item.{}", of_item(field)),
            Self::Close => format!("close{}", field.strip_prefix("context.key").unwrap_or("")),
        }
    }
}

fn of_item(field: &str) -> String {
    if in_context(field) { format!("context.{field}") } else { field.to_owned() }
}

/// Parts of a correction beside its item.
fn of_correction(field: &str) -> bool {
    matches!(field, "corrector" | "max_rounds" | "max_candidates" | "guidance")
}

/// Parts that a service names without knowing that the wire keeps them in a context.
fn in_context(field: &str) -> bool {
    let first = field.split('.').next().unwrap_or(field);
    matches!(
        first,
        "image" | "prompt" | "adapter" | "required_version" | "timeout" | "options" | "group"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_the_request_field_in_full() {
        assert_eq!(Place::Score.path("context.image"), "score.context.image");
        assert_eq!(Place::Score.path("image"), "score.context.image");
        assert_eq!(Place::Batch(3).path("response"), "items[3].response");
        assert_eq!(Place::Batch(0).path("options.threshold"), "items[0].context.options.threshold");
        assert_eq!(Place::Open.path("context.key.item_id"), "open.key.item_id");
        assert_eq!(Place::Append.path("context.key.item_id"), "append.key.item_id");
        assert_eq!(Place::Close.path("context.key.item_id"), "close.item_id");
        assert_eq!(Place::Close.path("context.key"), "close");
        assert_eq!(Place::Correct.path("corrector"), "item.corrector");
        assert_eq!(Place::Correct.path("image"), "item.item.context.image");
        assert_eq!(Place::Correct.path("response"), "item.item.response");
        assert_eq!(Place::Request.path("text"), "text");
    }
}
