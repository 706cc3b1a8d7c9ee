//! Where in a policy's whole text its response stands.
//!
//! Trainers decode all of a sequence's tokens, special ones included, and send the prompt as it was
//! before it was tokenised. Where the one does not begin with the other byte by byte, these trims
//! are tried: a token that begins texts, white space at the very start, and the placeholders into
//! which a processor turns an image, with white space beside them.

use std::ops::Range;

/// With which tokenizers begin a text.
const BEGINS: &[&str] = &["<bos>", "<s>", "<|begin_of_text|>", "<|startoftext|>"];
/// With which policies end a response, and what fills up a batch.
const ENDS: &[&str] = &[
    "<eos>",
    "</s>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eot|>",
    "<|end|>",
    "<end_of_turn>",
    "<turn|>",
    "<pad>",
    "<|pad|>",
    "<|finetune_right_pad_id|>",
];
/// What stands for an image, once in a template and often in its tokens.
const PLACEHOLDERS: &[&str] = &[
    "<image>",
    "<|image|>",
    "<|image_pad|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<|image>",
    "<image|>",
    "<IMG_CONTEXT>",
    "<img>",
    "</img>",
    "<fake_token_around_image>",
    "<global-img>",
    "[IMG]",
    "[IMG_BREAK]",
    "[IMG_END]",
];

/// The response in `query`, as bytes of it; `None` where `query` does not begin with `prompt`,
/// trimmed or not.
pub(super) fn response(query: &str, prompt: &str) -> Option<Range<usize>> {
    let start = match query.strip_prefix(prompt) {
        // The first of many placeholders is not all of the prompt.
        Some(rest) if !(ends_in_image(prompt) && after_image(rest).is_some()) => prompt.len(),
        _ => behind(query, prompt)?,
    };
    let response = query.get(start..)?;
    Some(start..start + without_ends(response).len())
}

/// A prompt without what stands for an image, which is plain text to the reward model.
pub(super) fn without_placeholders(prompt: &str) -> String {
    let mut out = String::with_capacity(prompt.len());
    let mut rest = prompt;
    while let Some(first) = rest.chars().next() {
        if let Some(less) = after_one(rest, PLACEHOLDERS) {
            rest = less;
        } else {
            out.push(first);
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    out
}

/// Where `prompt` ends in `query`, with trims.
fn behind(query: &str, prompt: &str) -> Option<usize> {
    let (mut q, mut p) = (start(query), start(prompt));
    while !p.is_empty() {
        let (less_q, less_p) = (after_image(q), after_image(p));
        if less_q.is_some() || less_p.is_some() {
            // White space that the one has beside an image need not be in the other.
            q = less_q.unwrap_or(q);
            p = less_p.unwrap_or(p);
            if p.trim_start().is_empty() {
                // What follows is the response's own, unless the prompt ended so.
                q = q.strip_prefix(p).unwrap_or(q);
                p = "";
            } else {
                (q, p) = (q.trim_start(), p.trim_start());
            }
            continue;
        }
        let next = p.chars().next()?;
        q = q.strip_prefix(next)?;
        p = p.strip_prefix(next)?;
    }
    Some(query.len() - q.len())
}

/// Without what may stand before the first word.
fn start(text: &str) -> &str {
    let text = text.trim_start();
    after_one(text, BEGINS).unwrap_or(text).trim_start()
}

/// Behind a run of placeholders and the white space before and among them; `None` where none stands
/// here.
fn after_image(text: &str) -> Option<&str> {
    let mut rest = after_one(text.trim_start(), PLACEHOLDERS)?;
    while let Some(less) = after_one(rest.trim_start(), PLACEHOLDERS) {
        rest = less;
    }
    Some(rest)
}

fn ends_in_image(prompt: &str) -> bool {
    let prompt = prompt.trim_end();
    PLACEHOLDERS.iter().any(|token| prompt.ends_with(token))
}

fn without_ends(response: &str) -> &str {
    let mut left = response;
    loop {
        let trimmed = left.trim_end();
        let Some(less) = ENDS.iter().find_map(|end| trimmed.strip_suffix(end)) else { return left };
        left = less;
    }
}

fn after_one<'a>(text: &'a str, tokens: &[&str]) -> Option<&'a str> {
    tokens.iter().find_map(|token| text.strip_prefix(token))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken<'a>(query: &'a str, prompt: &str) -> Option<&'a str> {
        response(query, prompt).map(|range| &query[range])
    }

    #[test]
    fn an_exact_prefix_is_taken_off_and_nothing_else() {
        assert_eq!(taken("Say it. There is.", "Say it. "), Some("There is."));
        assert_eq!(taken("Say it. There is.", "Say it."), Some(" There is."));
        assert_eq!(taken("There is.", ""), Some("There is."));
        assert_eq!(taken("Say it.", "Say it."), Some(""));
        assert_eq!(taken("Say so. There is.", "Say it. "), None);
        assert_eq!(taken("Say", "Say it."), None);
    }

    #[test]
    fn beginnings_are_trimmed() {
        assert_eq!(taken("<bos>Say it. There", "Say it. "), Some("There"));
        assert_eq!(taken("<s> Say it. There", "Say it."), Some(" There"));
        assert_eq!(taken(" Say it. There", "Say it."), Some(" There"));
        assert_eq!(taken("Say it. There", "<bos>Say it."), Some(" There"));
    }

    #[test]
    fn an_image_s_many_placeholders_are_its_one() {
        let prompt =
            "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Say it.<|im_end|>\n";
        let many = "<|image_pad|>".repeat(300);
        let query = prompt.replace("<|image_pad|>", &many) + "There.<|im_end|>\n<|endoftext|>";
        assert_eq!(taken(&query, prompt), Some("There."));
        let soft = "<image_soft_token>".repeat(256);
        let query =
            format!("<bos>user\n\n\n<start_of_image>{soft}<end_of_image>\n\nSay it.\nThere.");
        assert_eq!(taken(&query, "user\n<start_of_image>Say it.\n"), Some("There."));
        let many = "<image>".repeat(256);
        assert_eq!(taken(&format!("{many}<bos>Say it.\nThere."), "<image>Say it.\n"), None);
        assert_eq!(taken(&format!("{many}Say it.\nThere."), "<image>Say it.\n"), Some("There."));
        assert_eq!(taken(&format!("Say it.{many}\n There."), "Say it.<image>\n"), Some(" There."));
        assert_eq!(taken(&format!("Say it.{many} There."), "Say it.<image>"), Some(" There."));
    }

    #[test]
    fn ends_are_taken_off_and_words_are_not() {
        assert_eq!(without_ends("There. <|im_end|>\n"), "There. ");
        assert_eq!(without_ends("There.<end_of_turn>\n<eos><pad><pad>"), "There.");
        assert_eq!(without_ends("There. "), "There. ");
        assert_eq!(without_ends("a < b <eos> c"), "a < b <eos> c");
        assert_eq!(without_ends("<eos>"), "");
    }

    #[test]
    fn the_reward_model_sees_no_placeholders() {
        assert_eq!(without_placeholders("<image>\nSay <b>it</b>.[IMG]"), "\nSay <b>it</b>.");
    }

    proptest! {
        #[test]
        fn any_two_texts_give_a_range_within_the_query(
            query in "(<image>|<bos>|<eos>|[a-c \n]|é){0,12}",
            prompt in "(<image>|<bos>|<eos>|[a-c \n]|é){0,8}",
        ) {
            if let Some(range) = response(&query, &prompt) {
                prop_assert!(query.get(range).is_some());
            }
            let whole = format!("{prompt}{query}");
            let range = response(&whole, &prompt).unwrap();
            prop_assert!(range.start >= prompt.len());
            prop_assert!(range.start == prompt.len() || ends_in_image(&prompt));
        }
    }
}
