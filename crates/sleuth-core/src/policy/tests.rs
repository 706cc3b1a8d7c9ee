use proptest::prelude::*;

use super::*;

fn pieces<const N: usize>(pieces: [&str; N]) -> PolicyTokens {
    PolicyTokens::Pieces(pieces.iter().map(|p| p.as_bytes().to_vec()).collect())
}

fn ends<const N: usize>(text: &str, given: [&str; N]) -> Vec<u32> {
    pieces(given).ends(text.as_bytes(), true).unwrap()
}

fn fault(given: &PolicyTokens, text: &str) -> (usize, PolicyFault) {
    let mismatch = given.ends(text.as_bytes(), true).unwrap_err();
    (mismatch.index, mismatch.what)
}

/// GPT-2's `bytes_to_unicode`, as its authors wrote it.
fn byte_level(bytes: &[u8]) -> String {
    let printable: Vec<u32> = (33..=126).chain(161..=172).chain(174..=255).collect();
    let mut moved = (0_u32..256).filter(|b| !printable.contains(b));
    let moved: Vec<u32> = moved.by_ref().collect();
    let code = |byte: u32| match moved.iter().position(|&m| m == byte) {
        Some(n) => 256 + n as u32,
        None => byte,
    };
    bytes.iter().map(|&b| char::from_u32(code(u32::from(b))).unwrap()).collect()
}

/// The text cut at some of its bytes.
fn cut(text: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
    let mut places: Vec<usize> = cuts.iter().map(|c| c % (text.len() + 1)).collect();
    places.extend([0, text.len()]);
    places.sort_unstable();
    places.windows(2).map(|w| text[w[0]..w[1]].to_vec()).collect()
}

fn sums(pieces: &[Vec<u8>]) -> Vec<u32> {
    let mut at = 0;
    pieces
        .iter()
        .map(|p| {
            at += p.len() as u32;
            at
        })
        .collect()
}

#[test]
fn pieces_are_read_in_each_spelling() {
    assert_eq!(ends("a red\ncat", ["a", " red", "\n", "cat"]), [1, 5, 6, 9]);
    assert_eq!(ends("a red\ncat", ["a", "Ġred", "Ċ", "cat"]), [1, 5, 6, 9]);
    assert_eq!(ends("a red\ncat", ["▁a", "▁red", "<0x0A>", "cat"]), [1, 5, 6, 9]);
    assert_eq!(ends("é🙂", ["Ã©", "ðŁ", "Ļ", "Ĥ"]), [2, 4, 5, 6]);
    assert_eq!(ends("🙂", ["<0xF0>", "<0x9f>", "<0x99>", "<0x82>"]), [1, 2, 3, 4]);
}

#[test]
fn special_tokens_have_no_bytes_unless_the_text_has_them() {
    assert_eq!(ends("hi", ["<s>", "hi", "</s>", "<|im_end|>", "[PAD]"]), [0, 2, 2, 2, 2]);
    assert_eq!(ends("hi", ["h", "i", "<｜end▁of▁sentence｜>"]), [1, 2, 2]);
    assert_eq!(ends("a <eos>", ["a", "Ġ", "<eos>", "<eos>"]), [1, 2, 7, 7]);
    assert_eq!(ends("a <｜x▁｜>é", ["a", "Ġ", "<｜x▁｜>", "Ã©"]), [1, 2, 14, 16]);
    assert_eq!(ends("a[0]", ["a", "[0]"]), [1, 4]);
}

#[test]
fn an_added_token_keeps_its_own_bytes_beside_spelled_ones() {
    assert_eq!(ends("a    é b", ["a", "    ", "é", "Ġb"]), [1, 5, 7, 9]);
}

#[test]
fn the_space_in_front_of_a_text_is_left_out_only_there() {
    assert_eq!(ends("red cat", ["▁red", "▁cat"]), [3, 7]);
    assert_eq!(ends("red", ["▁", "red"]), [0, 3]);
    assert_eq!(ends("red", ["<s>", "▁", "r", "ed", "</s>"]), [0, 0, 1, 3, 3]);
    assert_eq!(ends(" red", ["▁red"]), [4]);
    assert_eq!(ends(" red", ["▁", "▁red"]), [0, 4]);
    assert_eq!(ends("  red", ["▁▁", "▁red"]), [1, 5]);
    assert_eq!(ends("", ["▁"]), [0]);
    assert_eq!(fault(&pieces(["a", "▁red"]), "ared"), (1, PolicyFault::Differs { at: 1 }));
    let inner = pieces(["▁red"]);
    assert_eq!(inner.ends(b" red", false).unwrap(), [4]);
    let mismatch = inner.ends(b"red", false).unwrap_err();
    assert_eq!(mismatch.to_string(), "policy token 0 is not what the text has at byte 0");
}

#[test]
fn a_block_that_is_itself_in_the_text_is_no_space() {
    assert_eq!(ends("a▁b c", ["▁a", "▁b", "▁c"]), [1, 5, 7]);
}

#[test]
fn the_name_of_a_byte_is_no_special_token() {
    assert_eq!(fault(&pieces(["hi", "<0x0A>"]), "hi"), (1, PolicyFault::Differs { at: 2 }));
    assert_eq!(ends("<0x0A>", ["<0x0A>"]), [6]);
}

#[test]
fn the_mismatch_is_that_of_the_reading_that_got_furthest() {
    let given = pieces(["a", "Ġred", "Ġcat"]);
    assert_eq!(fault(&given, "a red dog"), (2, PolicyFault::Differs { at: 5 }));
    let given = pieces(["▁a", "▁red", "▁dog", "<0x0A>"]);
    assert_eq!(fault(&given, "a red dog."), (3, PolicyFault::Differs { at: 9 }));
    let given = pieces(["a", "Ġred"]);
    assert_eq!(fault(&given, "a red dog"), (2, PolicyFault::Missing { at: 5, len: 9 }));
    assert_eq!(fault(&pieces([]), "a"), (0, PolicyFault::Missing { at: 0, len: 1 }));
}

#[test]
fn ends_ascend_to_the_end_of_the_text() {
    let given = |ends: &[u32]| PolicyTokens::Ends(ends.to_vec());
    assert_eq!(given(&[0, 2, 2, 5, 5]).ends(b"a red", true).unwrap(), [0, 2, 2, 5, 5]);
    assert_eq!(given(&[]).ends(b"", true).unwrap(), []);
    let (end, before) = (1, 2);
    assert_eq!(fault(&given(&[2, 1, 5]), "a red"), (1, PolicyFault::Descends { end, before }));
    assert_eq!(fault(&given(&[2, 6]), "a red"), (1, PolicyFault::PastText { end: 6, len: 5 }));
    assert_eq!(fault(&given(&[2, 4]), "a red"), (2, PolicyFault::Missing { at: 4, len: 5 }));
}

fn texts() -> impl Strategy<Value = String> {
    prop_oneof![".{0,30}", "[ aé▁ĠĊÃ©🙂字\\n\\t<>x0-9|]{0,30}"]
}

proptest! {
    #[test]
    fn raw_and_byte_level_pieces_end_where_they_were_cut(
        text in texts(),
        cuts in prop::collection::vec(any::<usize>(), 0..12),
        first: bool,
    ) {
        let raw = cut(text.as_bytes(), &cuts);
        let want = sums(&raw);
        let spelled = raw.iter().map(|p| byte_level(p).into_bytes()).collect();
        for given in [PolicyTokens::Ends(want.clone()), PolicyTokens::Pieces(raw),
                      PolicyTokens::Pieces(spelled)] {
            prop_assert_eq!(given.ends(text.as_bytes(), first), Ok(want.clone()));
        }
    }

    #[test]
    fn sentencepiece_pieces_end_where_they_were_cut(
        text in texts(),
        shapes in prop::collection::vec(0_u8..4, 30),
        prefix: bool,
    ) {
        let mut pieces = vec![b"<s>".to_vec(), if prefix { "▁".into() } else { Vec::new() }];
        let mut want = vec![0, 0];
        let mut at = 0_u32;
        let mut ended = true;
        for (c, shape) in text.chars().zip(&shapes) {
            if *shape == 0 && c != ' ' {
                for byte in c.to_string().bytes() {
                    at += 1;
                    pieces.push(format!("<0x{byte:02X}>").into_bytes());
                    want.push(at);
                }
                ended = true;
                continue;
            }
            at += c.len_utf8() as u32;
            let shown = if c == ' ' { "▁".to_owned() } else { c.to_string() };
            if *shape == 1 || ended {
                pieces.push(Vec::new());
                want.push(at);
            }
            ended = false;
            pieces.last_mut().unwrap().extend_from_slice(shown.as_bytes());
            *want.last_mut().unwrap() = at;
        }
        pieces.push(b"</s>".to_vec());
        want.push(at);
        prop_assert_eq!(PolicyTokens::Pieces(pieces).ends(text.as_bytes(), true), Ok(want));
    }

    #[test]
    fn any_pieces_give_ends_of_the_text_or_a_fault_within_it(
        text in prop::collection::vec(any::<u8>(), 0..12),
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..4), 0..6),
        first: bool,
    ) {
        let count = pieces.len();
        match PolicyTokens::Pieces(pieces).ends(&text, first) {
            Ok(ends) => {
                prop_assert_eq!(ends.len(), count);
                prop_assert!(ends.is_sorted());
                prop_assert_eq!(ends.last().copied().unwrap_or(0) as usize, text.len());
            }
            Err(mismatch) => prop_assert!(mismatch.index <= count),
        }
    }
}
