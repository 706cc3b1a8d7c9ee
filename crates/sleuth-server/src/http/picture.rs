//! How a request names an image.

use std::collections::HashMap;

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use sleuth_core::{ErrorClass, Failure, Reason};
use sleuth_proto::v1::image::Source;

/// An image: its bytes, or the digest of one that was put over gRPC.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Picture {
    pub(super) source: Source,
    pub(super) blake3: [u8; 32],
}

/// Reads the images of one request. Those that are the same are decoded and kept once.
#[derive(Debug)]
pub(super) struct Pictures {
    most_bytes: usize,
    read: HashMap<[u8; 32], Result<Picture, Failure>>,
}

const EITHER_PADDING: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, EITHER_PADDING);
const BASE64_URL_SAFE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, EITHER_PADDING);
/// Where faults of images stand.
const FIELD: &str = "context.image";

// === impl Pictures ===

impl Pictures {
    /// Of at most so many bytes each.
    pub(super) fn new(most_bytes: usize) -> Self {
        Self { most_bytes, read: HashMap::new() }
    }

    /// Base64 of a file, a `data:` URL of one, or `blake3:` and a digest.
    pub(super) fn read(&mut self, text: &str) -> Result<Picture, Failure> {
        let most = self.most_bytes;
        let seen = *blake3::hash(text.as_bytes()).as_bytes();
        self.read.entry(seen).or_insert_with(|| picture(text, most)).clone()
    }
}

/// Whether a text is an image by its first letters, where it may also be something else.
pub(super) fn is_picture(text: &str) -> bool {
    text.starts_with("data:image/") || text.starts_with(DIGEST)
}

/// An item without an image.
pub(super) fn missing(what: &str) -> Failure {
    Failure::new(ErrorClass::InvalidRequest, Reason::IMAGE_MISSING, what).at(FIELD)
}

const DIGEST: &str = "blake3:";

fn picture(text: &str, most: usize) -> Result<Picture, Failure> {
    if let Some(hex) = text.strip_prefix(DIGEST) {
        let hash = blake3::Hash::from_hex(hex)
            .map_err(|_| invalid("after `blake3:` stand 64 hexadecimal digits"))?;
        let blake3 = *hash.as_bytes();
        return Ok(Picture { source: Source::Blake3(Bytes::copy_from_slice(&blake3)), blake3 });
    }
    if text.starts_with("http:") || text.starts_with("https:") {
        let detail = "the server fetches nothing: send the image as a data: URL or as base64, or \
                      put it over gRPC and name it as `blake3:` and its digest";
        return Err(invalid(detail));
    }
    let base64 = match text.strip_prefix("data:") {
        None => text,
        Some(url) => {
            let (kind, data) = url.split_once(',').unwrap_or((url, ""));
            if !kind.ends_with(";base64") {
                return Err(invalid("a data: URL of an image is `data:image/png;base64,...`"));
            }
            data
        }
    };
    if base64.is_empty() {
        return Err(missing("an item needs an image"));
    }
    if base64.len() / 4 * 3 > most {
        let detail = format!("has more than {most} bytes");
        return Err(Failure::new(ErrorClass::TooLarge, Reason::IMAGE_TOO_LARGE, detail).at(FIELD));
    }
    let data = BASE64.decode(base64).or_else(|_| BASE64_URL_SAFE.decode(base64));
    let data = data.map_err(|_| {
        invalid("is no base64 of a file, no data: URL, and no `blake3:` with a digest")
    })?;
    let blake3 = *blake3::hash(&data).as_bytes();
    Ok(Picture { source: Source::Data(data.into()), blake3 })
}

fn invalid(detail: &str) -> Failure {
    Failure::new(ErrorClass::InvalidRequest, Reason::FIELD_INVALID, detail).at(FIELD)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Picture, Failure> {
        Pictures::new(16).read(text)
    }

    #[test]
    fn bytes_come_as_base64_or_in_a_url_and_have_their_digest() {
        let expected = Picture {
            source: Source::Data(Bytes::from_static(b"\xff\xefpng")),
            blake3: *blake3::hash(b"\xff\xefpng").as_bytes(),
        };
        for text in ["/+9wbmc=", "/+9wbmc", "_-9wbmc=", "data:image/png;base64,/+9wbmc="] {
            assert_eq!(read(text).unwrap(), expected, "{text}");
        }
        let digest = blake3::hash(b"put before");
        let named = read(&format!("blake3:{}", digest.to_hex())).unwrap();
        assert_eq!(named.blake3, *digest.as_bytes());
        assert_eq!(named.source, Source::Blake3(Bytes::copy_from_slice(digest.as_bytes())));
    }

    #[test]
    fn what_is_no_image_is_refused_with_what_to_do() {
        for (text, says) in [
            ("http://host/a.png", "the server fetches nothing"),
            ("https://host/a.png", "the server fetches nothing"),
            ("data:image/png,raw", "data:image/png;base64"),
            ("data:image/png;base64,", "needs an image"),
            ("", "needs an image"),
            ("blake3:abc", "64 hexadecimal digits"),
            ("not base64!", "no base64"),
            (&"A".repeat(64), "more than 16 bytes"),
        ] {
            let failure = read(text).unwrap_err();
            assert!(failure.detail.contains(says), "{text}: {}", failure.detail);
            assert_eq!(failure.field, Some(FIELD));
        }
    }

    #[test]
    fn the_same_image_is_kept_once() {
        let mut pictures = Pictures::new(16);
        let (a, b) = (pictures.read("AAAA").unwrap(), pictures.read("AAAA").unwrap());
        let (Source::Data(a), Source::Data(b)) = (a.source, b.source) else { panic!("bytes") };
        assert_eq!(a.as_ptr(), b.as_ptr());
    }
}
