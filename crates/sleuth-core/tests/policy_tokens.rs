//! Policies' tokens as published tokenizers make and spell them.
#![expect(clippy::expect_used, reason = "all of this file is tests")]

use proptest::prelude::*;
use serde_json::Value;
use sleuth_core::{ByteSpan, PolicyTokens, Realignment, TokenReward, realign, spans_of_ends};
use tiktoken_rs::{CoreBPE, cl100k_base_singleton, o200k_base_singleton, r50k_base_singleton};

/// Made by `make_policy_tokens.py` beside it.
const SPELLED: &str = include_str!("../../../tests/golden/policy_tokens.json");

fn vocabularies() -> [&'static CoreBPE; 3] {
    [r50k_base_singleton(), cl100k_base_singleton(), o200k_base_singleton()]
}

fn raw(vocabulary: &CoreBPE, text: &str) -> Vec<Vec<u8>> {
    let ids = vocabulary.encode_ordinary(text);
    ids.iter().map(|&id| vocabulary.decode_bytes(&[id]).expect("its own id")).collect()
}

fn ends(pieces: &[Vec<u8>]) -> Vec<u32> {
    let mut at = 0;
    let end = |piece: &Vec<u8>| {
        at += piece.len() as u32;
        at
    };
    pieces.iter().map(end).collect()
}

/// As a vocabulary of byte-level BPE names it.
fn byte_level(piece: &[u8]) -> Vec<u8> {
    let moved = |code| char::from_u32(code).expect("below U+0144");
    let name = |&byte: &u8| match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
        0..=0x20 => moved(0x100 + u32::from(byte)),
        0x7F..=0xA0 => moved(0x121 + u32::from(byte - 0x7F)),
        0xAD => '\u{143}',
    };
    piece.iter().map(name).collect::<String>().into_bytes()
}

struct Case {
    of: String,
    text: String,
    pieces: PolicyTokens,
    ends: Vec<u32>,
}

fn spelled() -> Vec<Case> {
    let cases: Vec<Value> = serde_json::from_str(SPELLED).expect("a list");
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let string = |value: &Value| value.as_str().expect("a string").to_owned();
    let case = |case: &Value| Case {
        of: string(&case["tokenizer"]),
        text: string(&case["text"]),
        pieces: PolicyTokens::Pieces(
            list(&case["pieces"]).iter().map(|p| string(p).into_bytes()).collect(),
        ),
        ends: list(&case["ends"]).iter().map(|e| e.as_u64().expect("a place") as u32).collect(),
    };
    cases.iter().map(case).collect()
}

#[test]
fn published_spellings_end_where_their_tokenizers_say() {
    let cases = spelled();
    assert!(cases.len() > 150);
    for Case { of, text, pieces, ends } in cases {
        assert_eq!(pieces.ends(text.as_bytes(), true), Ok(ends), "{of} of {text:?}");
    }
}

#[test]
fn a_token_that_the_text_lacks_is_named() {
    for Case { of, text, pieces, .. } in spelled() {
        let longer = format!("{text}~");
        let mismatch = pieces.ends(longer.as_bytes(), true).unwrap_err();
        assert_eq!(mismatch.index, pieces.len(), "{of} of {text:?}");
    }
}

proptest! {
    #[test]
    fn raw_pieces_spelled_pieces_and_ends_agree(text in ".{0,80}|[ a-zé字🧑\u{200d}🚀.\n]{0,80}") {
        for vocabulary in vocabularies() {
            let pieces = raw(vocabulary, &text);
            let want = ends(&pieces);
            let spelled = pieces.iter().map(|p| byte_level(p)).collect();
            for given in [PolicyTokens::Ends(want.clone()), PolicyTokens::Pieces(pieces),
                          PolicyTokens::Pieces(spelled)] {
                prop_assert_eq!(given.ends(text.as_bytes(), true), Ok(want.clone()));
            }
        }
    }

    #[test]
    fn every_token_of_a_policy_is_covered_by_a_model_that_scores_the_whole_text(
        text in "[ a-zé字🧑\u{200d}🚀.\n]{0,60}",
        logits in prop::collection::vec(-9.0_f32..9.0, 60),
    ) {
        // A model with a token for each character.
        let starts = text.char_indices().map(|(at, c)| (at, at + c.len_utf8()));
        let span = |(start, end)| ByteSpan::try_new(start as u32, end as u32).unwrap();
        let tokens: Vec<TokenReward> =
            starts.map(span).zip(&logits).map(|(s, &x)| TokenReward::from_logit(s, x)).collect();
        for vocabulary in vocabularies() {
            let policy = spans_of_ends(&ends(&raw(vocabulary, &text)));
            for how in Realignment::ALL {
                for got in realign(&tokens, &policy, how) {
                    prop_assert_eq!(got.coverage.to_bits(), 1.0_f32.to_bits());
                    let covered = got.covered.unwrap();
                    prop_assert!(covered.logit.is_finite());
                    prop_assert!((0.0..=1.0).contains(&covered.reward));
                }
            }
        }
    }
}
