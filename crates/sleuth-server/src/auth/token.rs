use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sleuth_core::Secret;

/// What tokens begin with, so that scanners for leaked secrets know them.
const PREFIX: &str = "sleuth_";
const RANDOM_BYTES: usize = 32;
/// A longer one is not looked at.
const MAX_BYTES: usize = 512;

/// A token that nobody has yet.
#[derive(Debug)]
pub struct NewToken {
    /// To be handed over once and not kept.
    pub token: Secret,
    /// What a credentials file holds instead: BLAKE3 in hexadecimal.
    pub blake3: String,
}

// === impl NewToken ===

impl NewToken {
    /// 256 bits from the system's random source; fails where that does.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes)?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
        let blake3 = blake3::hash(token.as_bytes()).to_hex().to_string();
        Ok(Self { token: Secret::new(token), blake3 })
    }
}

/// The digest of the token in an `authorization` header; `None` for anything else.
pub(super) fn digest_of(header: &[u8]) -> Option<[u8; 32]> {
    let (scheme, rest) = header.split_at_checked("bearer ".len())?;
    let token = rest.trim_ascii();
    let is_token = scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty();
    (is_token && token.len() <= MAX_BYTES).then(|| *blake3::hash(token).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_distinct_and_hidden() {
        let (a, b) = (NewToken::generate().unwrap(), NewToken::generate().unwrap());
        assert_ne!(a.token.reveal(), b.token.reveal());
        assert_eq!(a.token.reveal().len(), PREFIX.len() + 43);
        assert!(!format!("{a:?}").contains(a.token.reveal()));
        let header = format!("Bearer {}", a.token.reveal());
        let digest = digest_of(header.as_bytes()).unwrap();
        assert_eq!(blake3::Hash::from_bytes(digest).to_hex().as_str(), a.blake3);
    }

    #[test]
    fn other_schemes_are_no_tokens() {
        let long = [b"bearer ".as_slice(), &[b'a'; MAX_BYTES + 1]].concat();
        for header in [b"Basic YTpi".as_slice(), b"bearer ", b"Bearer    ", b"", &long] {
            assert_eq!(digest_of(header), None);
        }
        assert!(digest_of(b"BEARER x").is_some());
    }
}
