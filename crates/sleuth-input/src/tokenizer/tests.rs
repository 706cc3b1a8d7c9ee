use proptest::prelude::*;
use serde_json::{Value, json};
use sleuth_core::{ErrorClass, Reason};

use super::*;

const RESERVED: [&str; 5] = ["<bos>", "<eos>", "<image>", "<loc0000>", "<loc0001>"];

fn load(toy: &Value) -> TextTokenizer {
    TextTokenizer::from_json(&toy::bytes(toy), TextLimits::default()).unwrap()
}

fn reference(toy: &Value) -> Tokenizer {
    Tokenizer::from_bytes(toy::bytes(toy)).unwrap()
}

fn toys() -> Vec<(&'static str, Value)> {
    vec![
        ("gemma", toy::gemma()),
        ("llama", toy::llama()),
        ("gpt2", toy::gpt2()),
        ("unigram with bytes", toy::unigram(true)),
        ("unigram", toy::unigram(false)),
    ]
}

fn spans(encoded: &Encoded) -> Vec<(u32, u32)> {
    encoded.spans.iter().map(|s| (s.start(), s.end())).collect()
}

fn pieces<'a>(encoded: &Encoded, text: &'a str) -> Vec<&'a str> {
    encoded.spans.iter().map(|s| &text[s.range()]).collect()
}

/// What `encode_response` promises of spans.
fn check_spans(encoded: &Encoded, text: &str) {
    assert_eq!(encoded.ids.len(), encoded.spans.len());
    let mut covered = 0;
    let mut last = 0..0;
    for span in &encoded.spans {
        let now = span.range();
        assert!(text.get(now.clone()).is_some(), "{now:?} in {text:?}");
        assert!(now.start >= last.start && now.end >= last.end, "{last:?} {now:?} in {text:?}");
        assert!(now.start <= covered, "gap before {now:?} in {text:?}");
        if now.start < last.end {
            let shared = text[now.start..last.end].chars().count();
            assert_eq!(shared, 1, "{last:?} {now:?} share more than a character in {text:?}");
        }
        covered = covered.max(now.end);
        last = now;
    }
    assert_eq!(covered, text.len(), "{text:?}");
}

/// Each token's own text, where it has one, is the text of its span; the bytes of a character
/// follow each other.
fn check_content(encoded: &Encoded, text: &str, tokenizer: &Tokenizer) {
    let mut run: Vec<u8> = Vec::new();
    for (id, span) in encoded.ids.iter().zip(&encoded.spans) {
        let token = tokenizer.id_to_token(*id).unwrap();
        let slice = &text[span.range()];
        if let Some(hex) = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>')) {
            run.push(u8::from_str_radix(hex, 16).unwrap());
            assert!(slice.as_bytes().starts_with(&run), "{slice:?} {run:?} in {text:?}");
            assert_eq!(slice.chars().count(), 1, "{slice:?} in {text:?}");
            if run.len() == slice.len() {
                run.clear();
            }
        } else if token != "<unk>" {
            assert!(run.is_empty(), "{text:?}");
            let spoken = |s: &str| s.replace('▁', " ");
            let (token, slice) = (spoken(&token), spoken(slice));
            let plain = token == slice || token.strip_prefix(' ') == Some(&slice);
            assert!(plain, "{token:?} for {slice:?} in {text:?}");
        }
    }
    assert!(run.is_empty(), "{text:?}");
}

fn any_text() -> impl Strategy<Value = String> {
    let bit = prop_oneof![
        4 => "[abcdelos .]{1,6}",
        1 => "[ \n\t\0]{1,4}",
        1 => Just("▁".to_owned()),
        2 => proptest::sample::select(vec![
            "é", "e\u{301}", "😀", "👩‍👩‍👧", "“", "”", "中文", "ﬃ", "\u{0}", "Ġ", "İ", "\u{200d}",
        ]).prop_map(str::to_owned),
        2 => proptest::sample::select(vec![
            "<eos>", "<bos>", "<image>", "<loc0000>", "<loc0001>", "<unk>", "<0x41>", "<pad>",
            "<b<bos>os>", "<", ">", "<loc",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(bit, 1..12).prop_map(|bits| bits.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn spans_keep_their_promises_and_text_stays_text(text in any_text()) {
        for (name, toy) in toys() {
            let tokenizer = load(&toy);
            let encoded = tokenizer.encode_response(&text).unwrap();
            check_spans(&encoded, &text);
            let reference = reference(&toy);
            for reserved in RESERVED {
                let id = reference.token_to_id(reserved);
                prop_assert!(id.is_none_or(|id| !encoded.ids.contains(&id)), "{name} {reserved}");
            }
            if name != "gpt2" {
                check_content(&encoded, &text, &reference);
            }
        }
    }

    #[test]
    fn ordinary_text_has_the_ids_of_the_reference(text in "[abcdelos .é😀中\n]{1,40}") {
        for (name, toy) in toys() {
            let expected = reference(&toy).encode(text.as_str(), false).unwrap();
            let got = load(&toy).encode_response(&text).unwrap();
            prop_assert_eq!(got.ids.as_slice(), expected.get_ids(), "{}", name);
        }
    }

    #[test]
    fn byte_level_tokens_hold_the_bytes_of_their_spans(text in any_text()) {
        let toy = toy::gpt2();
        let encoded = load(&toy).encode_response(&text).unwrap();
        let reference = reference(&toy);
        // Every character of a byte-level token is one byte of the text.
        let bytes: usize =
            encoded.ids.iter().map(|&id| reference.id_to_token(id).unwrap().chars().count()).sum();
        prop_assert_eq!(bytes, text.len());
    }

    #[test]
    fn prompts_have_the_ids_of_the_reference(prompt in "[abcdelos .é😀中\n]{0,30}") {
        for toy in [toy::gemma(), toy::llama(), toy::gpt2()] {
            let line = format!("<bos>{prompt}\n");
            let expected = reference(&toy).encode(line, false).unwrap();
            let got = load(&toy).encode_prompt(&prompt).unwrap();
            prop_assert_eq!(&got[..], expected.get_ids());
        }
    }
}

#[test]
fn bytes_of_a_character_all_span_it() {
    let text = "a中b";
    let got = load(&toy::gemma()).encode_response(text).unwrap();
    assert_eq!(spans(&got), [(0, 1), (1, 4), (1, 4), (1, 4), (4, 5)]);
    let got = load(&toy::unigram(true)).encode_response("a中文").unwrap();
    assert_eq!(spans(&got), [(0, 1), (1, 4), (1, 4), (1, 4), (4, 7), (4, 7), (4, 7)]);
    let text = " “";
    let got = load(&toy::gpt2()).encode_response(text).unwrap();
    assert_eq!(pieces(&got, text), [" “", "“", "“"]);
}

#[test]
fn a_space_put_in_front_stands_for_no_text() {
    assert_eq!(spans(&load(&toy::llama()).encode_response("ab").unwrap()), [(0, 2)]);
    let emoji = load(&toy::llama()).encode_response("😀").unwrap();
    assert_eq!(spans(&emoji), [(0, 0), (0, 4)]);
    let text = "中";
    let got = load(&toy::unigram(false)).encode_response(text).unwrap();
    assert_eq!(pieces(&got, text), ["", "中"]);
}

#[test]
fn a_leading_space_belongs_to_the_first_word() {
    let text = " ab.\n\n ab";
    let got = load(&toy::gemma()).encode_response(text).unwrap();
    assert_eq!(pieces(&got, text), [" ab", ".", "\n\n", " ab"]);
}

#[test]
fn special_text_is_encoded_as_the_characters_it_is() {
    for (name, toy) in toys() {
        let tokenizer = load(&toy);
        for special in RESERVED {
            let text = format!("a{special}b");
            let got = tokenizer.encode_response(&text).unwrap();
            check_spans(&got, &text);
            let reference = reference(&toy);
            let one = reference.token_to_id(special);
            assert!(one.is_none_or(|id| !got.ids.contains(&id)), "{name} {special}");
            let prompt = tokenizer.encode_prompt(special).unwrap();
            assert!(one.is_none_or(|id| !prompt[1..].contains(&id)), "{name} {special}");
            assert_eq!(prompt[0], tokenizer.bos_id());
        }
    }
}

#[test]
fn nul_is_text_where_the_tokenizer_can_encode_it() {
    for (name, toy) in toys() {
        let got = load(&toy).encode_response("a\0b").unwrap();
        assert!(got.spans.iter().any(|s| s.range() == (1..2)), "{name}");
    }
}

#[test]
fn a_tokenizer_that_would_drop_a_character_refuses_the_text() {
    let tokenizer = load(&toy::dropping());
    tokenizer.encode_response("ab ab.").unwrap();
    for text in ["a\0b", "中", "ab中", "中ab"] {
        let failure = tokenizer.encode_response(text).unwrap_err().failure();
        assert_eq!((failure.class, failure.field), (ErrorClass::InvalidRequest, Some("response")));
        let failure = tokenizer.encode_prompt(text).unwrap_err().failure();
        assert_eq!(failure.field, Some("context.prompt"));
    }
}

#[test]
fn what_a_normaliser_removes_is_covered_by_a_neighbour() {
    let mut toy = toy::gemma();
    toy["normalizer"] = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    let text = "  ab ";
    let got = load(&toy).encode_response(text).unwrap();
    assert_eq!(pieces(&got, text), ["  ab "]);
    toy["normalizer"] = json!({"type": "NFC"});
    let text = "e\u{301}a";
    let got = load(&toy).encode_response(text).unwrap();
    assert_eq!(pieces(&got, text), ["e\u{301}", "a"]);
    toy["normalizer"] = json!({"type": "NFKD"});
    let text = "aﬃé";
    check_spans(&load(&toy).encode_response(text).unwrap(), text);
}

#[test]
fn text_of_which_nothing_is_left_is_refused() {
    let mut toy = toy::gemma();
    toy["normalizer"] = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    let failure = load(&toy).encode_response("   ").unwrap_err().failure();
    assert_eq!(failure.class, ErrorClass::InvalidRequest);
}

#[test]
fn truncation_padding_and_dropout_of_the_file_are_not_applied() {
    let mut toy = toy::gemma();
    toy["truncation"] = json!({"direction": "Right", "max_length": 2,
        "strategy": "LongestFirst", "stride": 0});
    toy["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right",
        "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"});
    toy["model"]["dropout"] = json!(0.9);
    let expected = load(&toy::gemma()).encode_response("ab ab ab ab").unwrap();
    for _ in 0..8 {
        assert_eq!(load(&toy).encode_response("ab ab ab ab").unwrap(), expected);
    }
}

#[test]
fn a_text_over_its_limits_is_refused_and_named() {
    let tokenizer = load(&toy::gemma());
    let verdict = |error: InputError| {
        let failure = error.failure();
        (failure.class, failure.reason, failure.field)
    };
    let large = "a".repeat(1 << 20);
    let expected = (ErrorClass::TooLarge, Reason::RESPONSE_TOO_LARGE, Some("response"));
    let error = tokenizer.encode_response(&large).unwrap_err();
    assert!(matches!(error, InputError::TextTooManyBytes { .. }), "{error}");
    assert_eq!(verdict(error), expected);
    // Fewer bytes than allowed, but a token for each.
    let many = "a".repeat(TextLimits::default().max_response_tokens + 1);
    assert_eq!(verdict(tokenizer.encode_response(&many).unwrap_err()), expected);
    let expected = (ErrorClass::TooLarge, Reason::PROMPT_TOO_LARGE, Some("context.prompt"));
    assert_eq!(verdict(tokenizer.encode_prompt(&large).unwrap_err()), expected);
    assert_eq!(verdict(tokenizer.encode_prompt(&many[..4096]).unwrap_err()), expected);
    let expected = (ErrorClass::InvalidRequest, Reason::RESPONSE_EMPTY, Some("response"));
    assert_eq!(verdict(tokenizer.encode_response("").unwrap_err()), expected);
}

#[test]
fn an_empty_prompt_is_bos_and_newline() {
    let tokenizer = load(&toy::gemma());
    let newline = reference(&toy::gemma()).token_to_id("\n").unwrap();
    assert_eq!(&tokenizer.encode_prompt("").unwrap()[..], [tokenizer.bos_id(), newline]);
}

#[test]
fn missing_tokens_and_broken_files_are_named() {
    let parse = |bytes: &[u8]| TextTokenizer::from_json(bytes, TextLimits::default());
    assert!(matches!(parse(b"{"), Err(FolderError::Tokenizer(_))));
    assert!(matches!(parse(b""), Err(FolderError::Tokenizer(_))));
    let mut toy = toy::gemma();
    toy["added_tokens"].as_array_mut().unwrap().retain(|t| t["content"] != "<image>");
    assert!(matches!(parse(&toy::bytes(&toy)), Err(FolderError::TokenMissing("<image>"))));
}

#[test]
fn ids_come_from_the_file() {
    let tokenizer = load(&toy::gemma());
    let reference = reference(&toy::gemma());
    assert_eq!(Some(tokenizer.bos_id()), reference.token_to_id("<bos>"));
    assert_eq!(Some(tokenizer.eos_id()), reference.token_to_id("<eos>"));
    assert_eq!(Some(tokenizer.image_id()), reference.token_to_id("<image>"));
    assert_eq!(tokenizer.vocab_size() as usize, reference.get_vocab_size(true));
}
