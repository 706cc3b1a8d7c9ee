use std::collections::BTreeSet;
use std::fmt::Write as _;

use sleuth_core::{ByteSpan, GuidanceLevel};

/// The prompt that asks a vision-language model, which sees the image, for a repair.
///
/// What it holds follows TLDR's appendix C: rules, the question, the response, at
/// [`GuidanceLevel::Token`] the flagged words (each once, in byte order, so capitals first) and those
/// of each sentence; the words are our own. `flagged` and `sentences` are spans of `response`, in
/// order; a span that reaches over sentences is told with each.
pub fn guidance_prompt(
    level: GuidanceLevel,
    prompt: &str,
    response: &str,
    flagged: &[ByteSpan],
    sentences: &[ByteSpan],
) -> String {
    let mut out = String::with_capacity(response.len() * 2 + prompt.len() + 1024);
    out.push_str(TASK);
    let rules: &[&str] = match level {
        GuidanceLevel::Token => &TOKEN_RULES,
        GuidanceLevel::Response => &RESPONSE_RULES,
        GuidanceLevel::Naive => &NAIVE_RULES,
    };
    out.push_str("\n\nRules:\n");
    for (number, rule) in (1..).zip(rules) {
        let _ = writeln!(out, "{number}. {rule}");
    }
    let _ = write!(out, "\nQuestion: {prompt}\n\nResponse: {response}\n\n");
    match level {
        GuidanceLevel::Token => list(&mut out, response, flagged, sentences),
        GuidanceLevel::Response => out.push_str(SOMETHING),
        GuidanceLevel::Naive => {}
    }
    out.push_str(CLOSING);
    out
}

const TASK: &str =
    "Look at the image and correct the response, so that everything it says is true of the image.";

const TOKEN_RULES: [&str; 5] = [
    "Change as little as possible.",
    "Change only the doubtful words listed below. Leave one out only if nothing in the image could \
     stand in its place.",
    "Write a sentence anew only if it has doubtful words and changing them is not enough.",
    "Copy all other sentences as they are, unless they no longer fit.",
    "A listed word may be right after all. The image decides.",
];

const RESPONSE_RULES: [&str; 4] = [
    "Change as little as possible.",
    "Change only words that are wrong. Leave one out only if nothing in the image could stand in \
     its place.",
    "Write a sentence anew only if changing its wrong words is not enough.",
    "Copy all other sentences as they are, unless they no longer fit.",
];

const NAIVE_RULES: [&str; 2] = ["Change as little as possible.", "Copy what is right as it is."];

const SOMETHING: &str = "Something in the response is not true of the image.\n\n";

const CLOSING: &str = "Correct all that is wrong. Write the corrected response and nothing else.\n\n\
                       Corrected response:";

/// All flagged words, then those of each sentence that has some.
fn list(out: &mut String, response: &str, flagged: &[ByteSpan], sentences: &[ByteSpan]) {
    let text = |span: ByteSpan| response.get(span.range()).unwrap_or_default().trim();
    let all: BTreeSet<&str> =
        flagged.iter().map(|&span| text(span)).filter(|words| !words.is_empty()).collect();
    let _ = writeln!(out, "Doubtful words: {}", quoted(all));
    for &sentence in sentences {
        let own = flagged.iter().filter_map(|&span| clipped(span, sentence)).map(text);
        let own: Vec<&str> = own.filter(|words| !words.is_empty()).collect();
        if !own.is_empty() {
            let whole = text(sentence);
            let whole = whole.strip_suffix('.').unwrap_or(whole);
            let _ = writeln!(out, "In the sentence \"{whole}\": {}", quoted(own));
        }
    }
    out.push('\n');
}

fn clipped(span: ByteSpan, sentence: ByteSpan) -> Option<ByteSpan> {
    if !span.overlaps(sentence) {
        return None;
    }
    ByteSpan::try_new(span.start().max(sentence.start()), span.end().min(sentence.end())).ok()
}

fn quoted<'a>(words: impl IntoIterator<Item = &'a str>) -> String {
    words.into_iter().map(|word| format!("\"{word}\"")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESPONSE: &str = "The red heart is large. A Star is red. Fine.";

    fn prompt(level: GuidanceLevel) -> String {
        let span = |start, end| ByteSpan::try_new(start, end).unwrap();
        let flagged = [span(4, 13), span(26, 30), span(34, 37)];
        let sentences = [span(0, 23), span(23, 38), span(38, 44)];
        guidance_prompt(level, "What is there?", RESPONSE, &flagged, &sentences)
    }

    #[test]
    fn token_guidance_lists_words_once_in_order_and_by_sentence() {
        let text = prompt(GuidanceLevel::Token);
        let at = text.find("Doubtful words").unwrap();
        let lists: Vec<&str> = text[at..].lines().take(3).collect();
        assert_eq!(
            lists,
            [
                "Doubtful words: \"Star\", \"red\", \"red heart\"",
                "In the sentence \"The red heart is large\": \"red heart\"",
                "In the sentence \"A Star is red\": \"Star\", \"red\"",
            ]
        );
        assert!(text.contains("Question: What is there?") && text.contains(RESPONSE));
        assert!(text.ends_with("Corrected response:"));
        assert!(text.contains("5. ") && !text.contains("6. "));
    }

    #[test]
    fn the_other_levels_name_no_word() {
        let response = prompt(GuidanceLevel::Response);
        assert!(response.contains("Something in the response is not true"));
        let naive = prompt(GuidanceLevel::Naive);
        assert!(naive.contains("2. ") && !naive.contains("3. "));
        for text in [response, naive] {
            assert!(!text.to_lowercase().contains("doubtful"), "{text}");
        }
    }

    #[test]
    fn words_over_a_sentence_end_are_told_with_both() {
        let span = |start, end| ByteSpan::try_new(start, end).unwrap();
        let sentences = [span(0, 5), span(5, 10)];
        let text =
            guidance_prompt(GuidanceLevel::Token, "", "a bc. d e.", &[span(2, 7)], &sentences);
        assert!(text.contains("In the sentence \"a bc\": \"bc.\""), "{text}");
        assert!(text.contains("In the sentence \"d e\": \"d\""), "{text}");
    }
}
