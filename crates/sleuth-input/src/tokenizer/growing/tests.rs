use std::mem::discriminant;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Value, json};
use sleuth_core::{ErrorClass, Reason};

use super::*;
use crate::TextLimits;
use crate::tokenizer::toy::{self, kinds};

type Named = (&'static str, Arc<TextTokenizer>);

static TOKENIZERS: LazyLock<Vec<Named>> = LazyLock::new(|| {
    let mut kinds = kinds::settling();
    kinds.extend(kinds::waiting());
    kinds.push(("mini", kinds::mini()));
    kinds.iter().map(|(name, toy)| (*name, load(toy))).collect()
});

const NASTY: [&str; 23] = [
    "a",
    " ",
    "The red circle isn't above 2 blue squares, it's left.\n\nIs it?",
    "ab ab.\n\n\n ab  ab   loc   \n ab",
    " ab \n ab\t\tab   ",
    "I've we'll they're 'tis o'clock a's ''s 'S",
    "中文ab中 é 文\u{301}e\u{301} x",
    "👩‍👩‍👧 😀😀 “a” “ a",
    "▁ab▁▁ ▁ a▁ ▁▁ \u{120}a",
    "ab▁ab b▁a b a",
    "a<eos>b<bos> <image><loc0000><loc0001>",
    "<loc<loc0001>0000> <b<bos>os> <unk>中<unk><unk>中",
    "中<unk> <0x41><0xE4>中 <0x4",
    "\0\0a\0 \u{a0}\u{2003}a\u{85}b \r\n",
    "abc abab lo loc eo <lo .\n.\n",
    "Zürich  naïve ﬃ İ ǅ \u{1f1e9}\u{1f1ea}",
    "aéa中é中a 中a é",
    "1234 5a6 7.8,9",
    "\n\n\n\n",
    "      a",
    "ab<unk>ab <unk",
    "ü中ü 中ü中",
    "x's x'd'll \u{2019}s",
];

fn load(toy: &Value) -> Arc<TextTokenizer> {
    Arc::new(TextTokenizer::from_json(&toy::bytes(toy), TextLimits::default()).unwrap())
}

fn grown<'a>(
    tokenizer: &Arc<TextTokenizer>,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Encoded, InputError> {
    let mut response = tokenizer.grow();
    let mut all = Encoded::default();
    let mut append = |part: Encoded| {
        all.ids.extend(part.ids);
        all.spans.extend(part.spans);
    };
    let mut received = Vec::new();
    for piece in pieces {
        append(response.push(piece)?);
        received.extend_from_slice(piece);
        assert_eq!(response.bytes(), received);
        assert!(response.held_back() > 0 || received.is_empty());
        assert_eq!(response.text(), None);
    }
    append(response.finish()?);
    assert_eq!(response.held_back(), 0);
    assert_eq!(response.text().map(str::as_bytes), Some(&received[..]));
    Ok(all)
}

/// Ends of pieces, in order, to pieces.
fn cut<'a>(text: &'a str, ends: &[usize]) -> Vec<&'a [u8]> {
    let starts = std::iter::once(0).chain(ends.iter().copied());
    let ends = ends.iter().copied().chain([text.len()]);
    starts.zip(ends).map(|(start, end)| &text.as_bytes()[start..end]).collect()
}

fn check(name: &str, tokenizer: &Arc<TextTokenizer>, text: &str, ends: &[usize]) {
    let expected = tokenizer.encode_response(text);
    match (grown(tokenizer, cut(text, ends)), expected) {
        (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{name}: {text:?} at {ends:?}"),
        (Err(got), Err(expected)) => assert_eq!(discriminant(&got), discriminant(&expected)),
        (got, expected) => panic!("{name}: {text:?} at {ends:?}: {got:?}, not {expected:?}"),
    }
}

fn any_text() -> impl Strategy<Value = String> {
    let bit = prop_oneof![
        4 => "[abcdelosx .]{1,6}",
        2 => proptest::sample::select(vec!["the red", " circle", "is", " two", "n't", "'ve ", "I'll"])
            .prop_map(str::to_owned),
        1 => "[ \n\t\0]{1,4}",
        1 => "[ ▁a]{1,4}",
        2 => proptest::sample::select(vec![
            "é", "e\u{301}", "😀", "👩‍👩‍👧", "“", "”", "中文", "ﬃ", "Ġ", "İ", "\u{200d}", "\u{a0}", "12", "中a",
        ]).prop_map(str::to_owned),
        2 => proptest::sample::select(vec![
            "<eos>", "<bos>", "<image>", "<loc0000>", "<loc0001>", "<unk>", "<0x41>", "<pad>",
            "<b<bos>os>", "<", ">", "<loc", "<0xE4>",
        ]).prop_map(str::to_owned),
        1 => any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(bit, 1..12).prop_map(|bits| bits.concat())
}

/// A text and where to cut it, inside characters too.
fn text_and_ends(
    text: impl Strategy<Value = String>,
) -> impl Strategy<Value = (String, Vec<usize>)> {
    let ends = proptest::collection::vec(any::<proptest::sample::Index>(), 0..8);
    (text, ends).prop_map(|(text, ends)| {
        let mut ends: Vec<usize> = ends.iter().map(|end| end.index(text.len() + 1)).collect();
        ends.sort_unstable();
        (text, ends)
    })
}

/// Merges of random pieces, over a few characters of which some are unknown in the texts.
fn any_bpe() -> impl Strategy<Value = Value> {
    let merges = proptest::collection::vec(any::<(u8, u8)>(), 0..24);
    let flags = proptest::array::uniform5(any::<bool>());
    (merges, flags).prop_map(|(merges, [fallback, fuse, whole, metaspace, split])| {
        let mut toy = kinds::random_bpe(&merges);
        toy["model"]["byte_fallback"] = json!(fallback);
        toy["model"]["fuse_unk"] = json!(fuse);
        toy["model"]["ignore_merges"] = json!(whole);
        if metaspace {
            toy["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁",
                "prepend_scheme": if fuse { "never" } else { "first" }, "split": split});
        } else if split {
            toy["pre_tokenizer"] = json!({"type": "Split", "pattern": {"String": "ba"},
                "behavior": if fuse { "MergedWithNext" } else { "MergedWithPrevious" },
                "invert": false});
        }
        toy
    })
}

fn any_unigram() -> impl Strategy<Value = Value> {
    // Sums of such scores round.
    let score = (-8_i8..2).prop_map(|score| f64::from(score) * 0.7);
    let pieces = proptest::collection::vec(("[ab▁<c]{1,4}", score), 1..16);
    (pieces, any::<bool>(), any::<bool>()).prop_map(|(pieces, fallback, metaspace)| {
        let mut toy = kinds::random_unigram(fallback, &pieces);
        if !metaspace {
            toy["pre_tokenizer"] = Value::Null;
        }
        toy
    })
}

#[test]
fn a_text_cut_anywhere_has_the_tokens_of_the_whole() {
    for (name, tokenizer) in TOKENIZERS.iter() {
        for text in NASTY {
            check(name, tokenizer, text, &(1..text.len()).collect::<Vec<_>>());
            for end in 0..=text.len() {
                check(name, tokenizer, text, &[end]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn random_texts_cut_anywhere_have_the_tokens_of_the_whole((text, ends) in text_and_ends(any_text())) {
        for (name, tokenizer) in TOKENIZERS.iter() {
            check(name, tokenizer, &text, &ends);
        }
    }

    #[test]
    fn random_vocabularies_join_nothing_over_a_settled_boundary(
        bpe in any_bpe(),
        unigram in any_unigram(),
        texts in proptest::collection::vec("[abc▁ é中<]{1,24}", 4),
    ) {
        for toy in [bpe, unigram] {
            let tokenizer = load(&toy);
            for text in &texts {
                check("random", &tokenizer, text, &(1..text.len()).collect::<Vec<_>>());
            }
        }
    }
}

/// Class, reason and field of what is wrong.
fn verdict(given: Result<Encoded, InputError>) -> (ErrorClass, Reason, Option<&'static str>) {
    let failure = given.unwrap_err().failure();
    (failure.class, failure.reason, failure.field)
}

fn limited(max_response_bytes: usize, max_response_tokens: usize) -> GrowingResponse {
    let limits = TextLimits { max_response_bytes, max_response_tokens, ..TextLimits::default() };
    let toy = toy::bytes(&toy::gemma());
    Arc::new(TextTokenizer::from_json(&toy, limits).unwrap()).grow()
}

#[test]
fn bytes_that_are_no_utf8_are_refused_as_soon_as_they_cannot_become_it() {
    let expected = (ErrorClass::InvalidRequest, Reason::RESPONSE_NOT_UTF8, Some("response"));
    for bad in [&b"a\xff"[..], b"\xc3a", b"\xed\xa0", b"\xf0\x9f\x98x", b"\x80"] {
        let mut response = limited(100, 100);
        response.push("é".as_bytes()).unwrap();
        let error = response.push(bad).unwrap_err();
        let at = 2 + usize::from(bad[0] == b'a');
        assert!(matches!(error, InputError::ResponseNotUtf8 { valid_up_to } if valid_up_to == at));
        assert_eq!(verdict(response.push(b"a")), expected);
        assert_eq!(verdict(response.finish()), expected);
        assert_eq!(response.text(), None);
    }
    let mut response = limited(100, 100);
    for byte in b"\xf0\x9f\x98" {
        response.push(&[*byte]).unwrap();
    }
    assert_eq!(response.held_back(), 3);
    assert_eq!(verdict(response.finish()), expected);
}

#[test]
fn a_response_over_its_limits_is_refused_when_it_passes_them() {
    let expected = (ErrorClass::TooLarge, Reason::RESPONSE_TOO_LARGE, Some("response"));
    let mut response = limited(4, 100);
    response.push(b"ab a").unwrap();
    let error = response.push(b"b").unwrap_err();
    assert!(matches!(error, InputError::TextTooManyBytes { bytes: 5, limit: 4, .. }), "{error}");
    assert_eq!(verdict(response.push(b"")), expected);
    // One token each, settled before the next.
    let mut response = limited(100, 2);
    response.push(b"ab ab ").unwrap();
    let error = response.push(b"ab ").unwrap_err();
    assert!(matches!(error, InputError::TextTooManyTokens { tokens: 3, limit: 2, .. }), "{error}");
    assert_eq!(verdict(response.finish()), expected);
    let mut response = limited(100, 2);
    response.push(b"ab ab a").unwrap();
    assert_eq!(verdict(response.finish()), expected);
}

#[test]
fn a_character_that_would_be_dropped_is_refused_once_it_is_settled() {
    let mut response = load(&toy::dropping()).grow();
    response.push("ab 中".as_bytes()).unwrap();
    let expected = (ErrorClass::InvalidRequest, Reason::FIELD_INVALID, Some("response"));
    assert_eq!(verdict(response.push(b" ab")), expected);
    assert_eq!(verdict(response.finish()), expected);
}

#[test]
fn an_empty_response_is_refused_at_its_end() {
    let expected = (ErrorClass::InvalidRequest, Reason::RESPONSE_EMPTY, Some("response"));
    let mut response = limited(100, 100);
    assert_eq!(response.push(b"").unwrap(), Encoded::default());
    assert_eq!(verdict(response.finish()), expected);
    assert_eq!(verdict(response.push(b"a")), expected);
}

#[test]
fn nothing_follows_the_end() {
    let mut response = limited(100, 100);
    response.push(b"ab ").unwrap();
    assert_eq!(response.finish().unwrap().ids.len(), 1);
    assert_eq!(response.finish().unwrap(), Encoded::default());
    assert_eq!(response.push(b"").unwrap(), Encoded::default());
    assert!(matches!(response.push(b"a"), Err(InputError::ResponseEnded)));
    assert_eq!(response.text(), Some("ab "));
}

#[test]
fn a_growing_response_can_move_between_threads() {
    fn sends<T: Send>(_: &T) {}
    sends(&limited(100, 100));
}
