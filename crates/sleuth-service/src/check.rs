use bytes::Bytes;
use sleuth_core::{Encoded, ErrorClass, Failure, ModelCard, Options, Reason, ScoreRequest};

/// A request that this model can take: what is left of it once its choices are resolved.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) image: Bytes,
    pub(crate) prompt: String,
    pub(crate) response: String,
    pub(crate) options: Options,
    /// In 0..=1.
    pub(crate) threshold: f32,
    pub(crate) priority: i32,
}

/// Checks all that needs no decoding and no tokeniser.
pub(crate) fn request(request: ScoreRequest<Bytes>, card: &ModelCard) -> Result<Checked, Failure> {
    let ScoreRequest {
        image,
        prompt,
        response,
        adapter,
        required_version,
        options,
        timeout: _,
        priority,
    } = request;
    if response.is_empty() {
        let detail = "the response is empty; there is nothing to score";
        return Err(invalid(Reason::RESPONSE_EMPTY, detail, "response"));
    }
    if image.is_empty() {
        return Err(invalid(Reason::IMAGE_MISSING, "an item needs an image", "context.image"));
    }
    check_adapter(adapter.as_deref(), card)?;
    check_version(required_version.as_deref(), card)?;
    let threshold = options.threshold.unwrap_or(card.threshold);
    if !(0.0..=1.0).contains(&threshold) {
        let detail = "a threshold is a number from 0 to 1";
        return Err(invalid(Reason::FIELD_INVALID, detail, "context.options.threshold"));
    }
    let prompt = prompt.unwrap_or_else(|| card.prompt.clone());
    Ok(Checked { image, prompt, response, options, threshold, priority })
}

/// Checks token counts against the model's own limits.
pub(crate) fn lengths(prompt: &[u32], response: &Encoded, card: &ModelCard) -> Result<(), Failure> {
    if response.ids.is_empty() {
        let detail = "the response has no tokens; there is nothing to score";
        return Err(invalid(Reason::RESPONSE_EMPTY, detail, "response"));
    }
    at_most(response.ids.len(), card.max_response_tokens)
        .map_err(|detail| too_large(Reason::RESPONSE_TOO_LARGE, detail, "response"))?;
    at_most(prompt.len(), card.max_prompt_tokens)
        .map_err(|detail| too_large(Reason::PROMPT_TOO_LARGE, detail, "context.prompt"))
}

fn check_adapter(asked: Option<&str>, card: &ModelCard) -> Result<(), Failure> {
    match asked {
        None | Some("") => Ok(()),
        Some(name) if card.adapter.as_deref() == Some(name) => Ok(()),
        Some(_) => {
            let detail = match &card.adapter {
                Some(loaded) => format!("no such adapter is loaded; there is `{loaded}`"),
                None => "no such adapter is loaded; there is none".to_owned(),
            };
            Err(Failure::new(ErrorClass::Unknown, Reason::ADAPTER_UNKNOWN, detail)
                .at("context.adapter"))
        }
    }
}

fn check_version(required: Option<&str>, card: &ModelCard) -> Result<(), Failure> {
    match required {
        None | Some("") => Ok(()),
        Some(version) if version == card.version => Ok(()),
        Some(_) => {
            let detail = format!("this server runs version {}", card.version);
            Err(Failure::new(ErrorClass::VersionChanged, Reason::VERSION_MISMATCH, detail)
                .at("context.required_version"))
        }
    }
}

fn at_most(tokens: usize, limit: u32) -> Result<(), String> {
    if tokens <= limit as usize {
        Ok(())
    } else {
        Err(format!("has {tokens} tokens; the model takes at most {limit}"))
    }
}

fn invalid(reason: Reason, detail: &str, field: &'static str) -> Failure {
    Failure::new(ErrorClass::InvalidRequest, reason, detail).at(field)
}

fn too_large(reason: Reason, detail: String, field: &'static str) -> Failure {
    Failure::new(ErrorClass::TooLarge, reason, detail).at(field)
}
