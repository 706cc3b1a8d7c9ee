use super::{PolicyFault, PolicyMismatch, complete};

/// How a vocabulary writes its tokens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Spelling {
    /// As they are.
    Raw,
    /// One character for each byte, by GPT-2's `bytes_to_unicode`.
    ByteLevel,
    /// `▁` for a space, `<0x0A>` for a byte.
    SentencePiece,
    /// The same, less the space in front of the text.
    SentencePieceUnspaced,
}

/// SentencePiece's space, U+2581.
const SPACE: &[u8] = "▁".as_bytes();

/// One past the last character of byte-level BPE, U+0143: 68 bytes have no printable character of
/// their own and take those from U+0100 on.
const ALPHABET_END: usize = 256 + 68;

/// The byte of each character of byte-level BPE.
const BYTES: [Option<u8>; ALPHABET_END] = bytes_of_characters();

/// Where each piece ends in `text`, by the first spelling under which they give it.
pub(super) fn ends(
    pieces: &[Vec<u8>],
    text: &[u8],
    first: bool,
) -> Result<Vec<u32>, PolicyMismatch> {
    let unspaced = first.then_some(Spelling::SentencePieceUnspaced);
    [Spelling::ByteLevel, Spelling::SentencePiece].into_iter().chain(unspaced).fold(
        Spelling::Raw.ends(pieces, text),
        |known, spelling| {
            known.or_else(|furthest| {
                let other = |e: PolicyMismatch| if e.index > furthest.index { e } else { furthest };
                spelling.ends(pieces, text).map_err(other)
            })
        },
    )
}

// === impl Spelling ===

impl Spelling {
    fn ends(self, pieces: &[Vec<u8>], text: &[u8]) -> Result<Vec<u32>, PolicyMismatch> {
        let mut ends = Vec::with_capacity(pieces.len());
        let mut at = 0;
        let mut leading = self == Self::SentencePieceUnspaced;
        for (index, piece) in pieces.iter().enumerate() {
            let shown = piece.strip_prefix(SPACE).filter(|_| leading).unwrap_or(piece);
            match self.taken(shown, text.get(at..).unwrap_or_default()) {
                Some(bytes) => {
                    at += bytes;
                    leading &= piece.is_empty();
                }
                None if is_special(piece) => {}
                None => return Err(PolicyMismatch { index, what: PolicyFault::Differs { at } }),
            }
            ends.push(at as u32);
        }
        complete(pieces.len(), at, text.len())?;
        Ok(ends)
    }

    /// How many bytes of `rest` the piece stands for, if `rest` starts with what it stands for.
    fn taken(self, piece: &[u8], rest: &[u8]) -> Option<usize> {
        let verbatim = || rest.starts_with(piece).then_some(piece.len());
        match self {
            Self::Raw => verbatim(),
            // An added token is not spelled in the vocabulary's alphabet.
            Self::ByteLevel => byte_level(piece, rest).or_else(verbatim),
            Self::SentencePiece | Self::SentencePieceUnspaced => match byte_token(piece) {
                Some(byte) if rest.first() == Some(&byte) => Some(1),
                _ => spaced(piece, rest),
            },
        }
    }
}

fn byte_level(piece: &[u8], rest: &[u8]) -> Option<usize> {
    let mut taken = 0;
    for character in str::from_utf8(piece).ok()?.chars() {
        let byte = (*BYTES.get(character as usize)?)?;
        if rest.get(taken) != Some(&byte) {
            return None;
        }
        taken += 1;
    }
    Some(taken)
}

/// `▁` is a space, or itself where the text has it.
fn spaced(mut piece: &[u8], rest: &[u8]) -> Option<usize> {
    let mut taken = 0;
    while let Some((byte, after)) = piece.split_first() {
        let found = rest.get(taken)?;
        piece = match piece.strip_prefix(SPACE) {
            Some(after) if *found == b' ' => after,
            _ if found == byte => after,
            _ => return None,
        };
        taken += 1;
    }
    Some(taken)
}

/// The byte that `<0x0A>` names.
fn byte_token(piece: &[u8]) -> Option<u8> {
    let digits = piece.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
}

/// Whether the piece is written like a special token. The name of a byte is not: it has a byte.
fn is_special(piece: &[u8]) -> bool {
    let bracketed = matches!(piece, [b'<', _, .., b'>'] | [b'[', _, .., b']']);
    bracketed && byte_token(piece).is_none()
}

const fn bytes_of_characters() -> [Option<u8>; ALPHABET_END] {
    let mut table = [None; ALPHABET_END];
    let mut next = 256;
    let mut byte = 0;
    while byte < 256 {
        let printable = matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
        if printable {
            table[byte] = Some(byte as u8);
        } else {
            table[next] = Some(byte as u8);
            next += 1;
        }
        byte += 1;
    }
    table
}
