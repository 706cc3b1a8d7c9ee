//! How many frames a file has, by its headers alone.

/// Of a PNG: what its animation control chunk says, which stands before the pixels; 1 without.
pub(super) fn png(bytes: &[u8]) -> u32 {
    let mut rest = bytes.get(8..).unwrap_or_default();
    while let Some((header, body)) = rest.split_first_chunk::<8>() {
        let (length, kind) = header.split_at(4);
        let length = length.try_into().map_or(u32::MAX, u32::from_be_bytes) as usize;
        match kind {
            b"acTL" => {
                let frames = body.first_chunk::<4>().filter(|_| length >= 4);
                return frames.map_or(1, |frames| u32::from_be_bytes(*frames)).max(1);
            }
            b"IDAT" | b"IEND" => return 1,
            _ => {}
        }
        // The body, and four bytes of check sum.
        let Some(next) = length.checked_add(4).and_then(|at| body.get(at..)) else { return 1 };
        rest = next;
    }
    1
}

/// Of a WebP: its frame chunks; 1 without.
pub(super) fn webp(bytes: &[u8]) -> u32 {
    let mut rest = bytes.get(12..).unwrap_or_default();
    let mut frames = 0_u32;
    while let Some((header, body)) = rest.split_first_chunk::<8>() {
        let (kind, length) = header.split_at(4);
        let length = length.try_into().map_or(u32::MAX, u32::from_le_bytes) as usize;
        frames = frames.saturating_add(u32::from(kind == b"ANMF"));
        // Chunks are padded to an even length.
        let next = length.checked_add(length % 2).and_then(|at| body.get(at..));
        rest = next.unwrap_or_default();
    }
    frames.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn png_of(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
        for (kind, body) in chunks {
            bytes.extend((body.len() as u32).to_be_bytes());
            bytes.extend(*kind);
            bytes.extend(*body);
            bytes.extend([0; 4]);
        }
        bytes
    }

    fn webp_of(chunks: &[(&[u8; 4], &[u8])]) -> Vec<u8> {
        let mut bytes = b"RIFF\0\0\0\0WEBP".to_vec();
        for (kind, body) in chunks {
            bytes.extend(*kind);
            bytes.extend((body.len() as u32).to_le_bytes());
            bytes.extend(*body);
            bytes.resize(bytes.len().next_multiple_of(2), 0);
        }
        bytes
    }

    #[test]
    fn frames_are_counted_from_headers() {
        let animated = png_of(&[(b"IHDR", &[0; 13]), (b"acTL", &[0, 0, 1, 2, 0, 0, 0, 0])]);
        assert_eq!(png(&animated), 258);
        assert_eq!(png(&png_of(&[(b"IHDR", &[0; 13]), (b"IDAT", &[1]), (b"acTL", &[9; 8])])), 1);
        let animated =
            webp_of(&[(b"VP8X", &[2; 10]), (b"ANMF", &[1; 3]), (b"ANMF", &[]), (b"EXIF", b"a")]);
        assert_eq!(webp(&animated), 2);
        assert_eq!(webp(&webp_of(&[(b"VP8 ", &[1; 5])])), 1);
    }

    #[test]
    fn cut_files_and_lengths_beyond_them_count_as_one_frame() {
        let whole = png_of(&[(b"IHDR", &[0; 13]), (b"tEXt", &[0; 3]), (b"acTL", &[0, 0, 0, 0])]);
        let cut_webp = webp_of(&[(b"VP8X", &[2; 10]), (b"ANMF", &[1; 3])]);
        for at in 0..whole.len() {
            assert_eq!(png(&whole[..at]), 1);
        }
        for at in 0..cut_webp.len() {
            assert_eq!(webp(&cut_webp[..at]), 1);
        }
        let mut huge = whole;
        huge[8..12].copy_from_slice(&[0xff; 4]);
        assert_eq!(png(&huge), 1);
    }
}
