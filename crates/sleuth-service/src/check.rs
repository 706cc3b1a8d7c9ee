use sleuth_core::{
    ByteSpan, Encoded, ErrorClass, Failure, ModelCard, Options, PolicyTokens, Reason, spans_of_ends,
};

/// The threshold that counts, in 0..=1.
pub(crate) fn threshold(options: &Options, card: &ModelCard) -> Result<f32, Failure> {
    let threshold = options.threshold.unwrap_or(card.threshold);
    if (0.0..=1.0).contains(&threshold) {
        return Ok(threshold);
    }
    let detail = "a threshold is a number from 0 to 1";
    Err(invalid(Reason::FIELD_INVALID, detail, "context.options.threshold"))
}

pub(crate) fn response(text: &str) -> Result<(), Failure> {
    if !text.is_empty() {
        return Ok(());
    }
    let detail = "the response is empty; there is nothing to score";
    Err(invalid(Reason::RESPONSE_EMPTY, detail, "response"))
}

/// Where the policy's tokens stand in a whole response.
pub(crate) fn policy(policy: &PolicyTokens, response: &str) -> Result<Vec<ByteSpan>, Failure> {
    let ends = policy
        .ends(response.as_bytes(), true)
        .map_err(|e| invalid(Reason::POLICY_MISMATCH, &e.to_string(), "policy"))?;
    Ok(spans_of_ends(&ends))
}

/// Checks token counts against the model's own limits.
pub(crate) fn lengths(prompt: &[u32], response: &Encoded, card: &ModelCard) -> Result<(), Failure> {
    if response.ids.is_empty() {
        let detail = "the response has no tokens; there is nothing to score";
        return Err(invalid(Reason::RESPONSE_EMPTY, detail, "response"));
    }
    response_length(response.ids.len(), card)?;
    prompt_length(prompt, card)
}

pub(crate) fn response_length(tokens: usize, card: &ModelCard) -> Result<(), Failure> {
    at_most(tokens, card.max_response_tokens)
        .map_err(|detail| too_large(Reason::RESPONSE_TOO_LARGE, detail, "response"))
}

pub(crate) fn prompt_length(prompt: &[u32], card: &ModelCard) -> Result<(), Failure> {
    at_most(prompt.len(), card.max_prompt_tokens)
        .map_err(|detail| too_large(Reason::PROMPT_TOO_LARGE, detail, "context.prompt"))
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
