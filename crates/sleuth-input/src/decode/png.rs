//! Just enough of PNG's chunks to read the size early and to refuse a palette on which the decoder
//! would panic.

const SIGNATURE: usize = 8;
/// Where the header chunk says what a sample is, and its word for a place in the palette.
const COLOUR_TYPE: usize = 25;
const INDEXED: u8 = 3;
/// Longest palette: 256 colours of three bytes.
const MAX_PALETTE: usize = 3 * 256;

/// Width and height from the header chunk, which comes first: the decoder calls some sizes damage.
pub(super) fn size(bytes: &[u8]) -> Option<(u32, u32)> {
    let (b"IHDR", sides) = bytes.get(12..24)?.split_first_chunk::<4>()? else { return None };
    let (width, height) = sides.split_first_chunk::<4>()?;
    Some((u32::from_be_bytes(*width), u32::from_be_bytes(height.try_into().ok()?)))
}

/// Whether every palette in front of the image data is one, where the image is made of its colours:
/// whole colours, at most 256 of them. Of other images a palette is only advice, which nobody reads.
///
/// The decoder takes any bytes for a palette and indexes past their end, or past 256 colours.
pub(super) fn has_sound_palette(bytes: &[u8]) -> bool {
    if bytes.get(COLOUR_TYPE) != Some(&INDEXED) {
        return true;
    }
    let mut rest = bytes.get(SIGNATURE..).unwrap_or_default();
    while let Some((kind, length, after)) = chunk(rest) {
        match kind {
            b"PLTE" if !length.is_multiple_of(3) || length > MAX_PALETTE => return false,
            b"IDAT" => return true,
            _ => rest = after,
        }
    }
    true
}

/// The next chunk's kind, the length of its data, and what follows it.
fn chunk(bytes: &[u8]) -> Option<(&[u8; 4], usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (kind, rest) = rest.split_first_chunk::<4>()?;
    let length = u32::from_be_bytes(*length) as usize;
    // Data and checksum; a chunk that is cut short is the last.
    Some((kind, length, rest.get(length.saturating_add(4)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(chunks: &[(&[u8; 4], usize)]) -> Vec<u8> {
        let mut out = vec![0; SIGNATURE];
        for &(kind, length) in chunks {
            out.extend((length as u32).to_be_bytes());
            out.extend(kind);
            out.extend(std::iter::repeat_n(INDEXED, length + 4));
        }
        out
    }

    #[test]
    fn a_palette_is_whole_colours_and_at_most_256() {
        for good in [0, 3, 768] {
            assert!(has_sound_palette(&file(&[(b"IHDR", 13), (b"PLTE", good), (b"IDAT", 1)])));
        }
        for bad in [1, 52, 769, 771] {
            let mut file = file(&[(b"IHDR", 13), (b"PLTE", bad), (b"IDAT", 1)]);
            assert!(!has_sound_palette(&file));
            file[COLOUR_TYPE] = 2;
            assert!(has_sound_palette(&file));
        }
    }

    #[test]
    fn what_follows_the_image_data_or_is_cut_short_is_no_palette() {
        assert!(has_sound_palette(&file(&[(b"IHDR", 13), (b"IDAT", 1), (b"PLTE", 1)])));
        let whole = file(&[(b"IHDR", 13), (b"PLTE", 6)]);
        for len in 0..whole.len() {
            assert!(has_sound_palette(&whole[..len]), "{len}");
        }
    }
}
