use std::fmt::Write as _;

use sleuth_core::{ModelCard, Scored};

use crate::items::slice;

/// The response with its tokens coloured by reward, its flagged spans and its reward.
///
/// Without `colour`, flagged tokens stand between `[` and `]`.
pub(crate) fn pretty(
    text: &str,
    scored: &Scored,
    card: &ModelCard,
    threshold: f32,
    colour: bool,
) -> String {
    let mut out = String::new();
    if colour {
        for token in &scored.tokens {
            let shade = shade(token.reward, threshold);
            let _ = write!(out, "\x1b[{shade}m{}\x1b[0m", slice(text, token.span));
        }
    } else {
        out.push_str(&bracketed(text, scored));
    }
    out.push_str("\n\n");
    for span in &scored.flagged {
        let lowest = scored
            .tokens
            .iter()
            .filter(|t| t.span.overlaps(*span))
            .map(|t| t.reward)
            .fold(f32::INFINITY, f32::min);
        let _ = writeln!(out, "  not grounded  {:.3}  {}", lowest, slice(text, *span).trim());
    }
    if scored.flagged.is_empty() {
        out.push_str("  every token is grounded\n");
    }
    let version = card.version.get(..12).unwrap_or(&card.version);
    let _ = writeln!(
        out,
        "  reward {:.3} ({}), {} tokens, {} {version}",
        scored.reward,
        scored.aggregation,
        scored.tokens.len(),
        card.name
    );
    out
}

/// Green where surely grounded, yellow where barely, red on black letters where not.
fn shade(reward: f32, threshold: f32) -> &'static str {
    let middle = threshold + (1.0 - threshold) / 2.0;
    if reward <= threshold {
        "30;41"
    } else if reward <= middle {
        "33"
    } else {
        "32"
    }
}

fn bracketed(text: &str, scored: &Scored) -> String {
    let mut out = String::new();
    let mut end = 0;
    for span in &scored.flagged {
        let range = span.range();
        out.push_str(text.get(end..range.start).unwrap_or_default());
        let word = slice(text, *span);
        // A token's leading space stands outside the brackets.
        let bare = word.trim_start();
        let _ = write!(out, "{}[{bare}]", &word[..word.len() - bare.len()]);
        end = range.end;
    }
    out.push_str(text.get(end..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use sleuth_core::{Aggregation, ByteSpan, CacheUse, Timing, TokenReward};

    use super::*;

    #[test]
    fn flagged_tokens_stand_in_brackets_without_colour() {
        let token = |start, end, logit| {
            TokenReward::from_logit(ByteSpan::try_new(start, end).unwrap(), logit)
        };
        let tokens = vec![token(0, 1, 2.0), token(1, 5, -2.0), token(5, 6, 2.0)];
        let scored = Scored {
            flagged: Scored::flagged_spans(&tokens, 0.5),
            tokens,
            sentences: Vec::new(),
            reward: 0.25,
            aggregation: Aggregation::Mean,
            version: String::new(),
            batch_invariant: false,
            timing: Timing::default(),
            cache: CacheUse::default(),
            policy: None,
            duplicates_joined: 0,
        };
        assert_eq!(bracketed("a red.", &scored), "a [red].");
    }
}
