//! Just enough of JPEG's marker structure to read the size early and to tell a whole file from a
//! truncated one: decoders paint what is missing grey instead of failing.

const SOI: u8 = 0xD8;
const EOI: u8 = 0xD9;
const SOS: u8 = 0xDA;
const TEM: u8 = 0x01;

/// Width and height from the first frame header, if one is found.
pub(super) fn frame_size(bytes: &[u8]) -> Option<(u32, u32)> {
    let mut markers = Markers { bytes, at: 0 };
    while let Some((marker, segment)) = markers.next_marker() {
        if is_frame(marker) {
            let [_, h1, h0, w1, w0, ..] = *segment else { return None };
            let side = |high, low| u32::from(u16::from_be_bytes([high, low]));
            return Some((side(w1, w0), side(h1, h0)));
        }
        if marker == EOI || marker == SOS {
            return None;
        }
    }
    None
}

/// Whether the end marker follows the first scan.
pub(super) fn has_end(bytes: &[u8]) -> bool {
    let mut markers = Markers { bytes, at: 0 };
    let mut scanned = false;
    while let Some((marker, _)) = markers.next_marker() {
        match marker {
            SOS => scanned = true,
            EOI if scanned => return true,
            _ => {}
        }
    }
    false
}

/// Walks the markers; data that belongs to no segment (scan data, fill bytes, noise) is stepped
/// over as libjpeg does.
struct Markers<'a> {
    bytes: &'a [u8],
    at: usize,
}

// === impl Markers ===

impl<'a> Markers<'a> {
    /// The next marker and its segment without the length; `None` at the end of the bytes, also in
    /// the middle of a segment.
    fn next_marker(&mut self) -> Option<(u8, &'a [u8])> {
        loop {
            let rest = self.bytes.get(self.at..)?;
            let offset = rest.iter().position(|&b| b == 0xFF)?;
            let marker = *rest.get(offset + 1)?;
            self.at += offset + 1;
            match marker {
                // A stuffed 0xFF of the scan data; or a fill byte, after which the marker comes.
                0x00 | 0xFF => {}
                SOI | EOI | TEM | 0xD0..=0xD7 => {
                    self.at += 1;
                    return Some((marker, &[]));
                }
                _ => {
                    let [high, low] = *self.bytes.get(self.at + 1..self.at + 3)? else {
                        return None;
                    };
                    let length = usize::from(u16::from_be_bytes([high, low]));
                    let start = self.at + 3;
                    self.at += 1 + length.max(2);
                    return Some((marker, self.bytes.get(start..self.at)?));
                }
            }
        }
    }
}

/// SOF0 to SOF15, without DHT, JPG and DAC, which lie between them.
const fn is_frame(marker: u8) -> bool {
    matches!(marker, 0xC0..=0xCF) && !matches!(marker, 0xC4 | 0xC8 | 0xCC)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: [u8; 33] = [
        0xFF, SOI, // start
        0xFF, 0xE1, 0, 6, 0xFF, SOS, 0xFF, EOI, // an APP1 whose content looks like markers
        0xFF, 0xC0, 0, 9, 8, 0x01, 0x02, 0x03, 0x04, 1, 0, // SOF0, 772 by 258
        0xFF, SOS, 0, 3, 0, // scan header
        0x12, 0xFF, 0x00, 0x34, // scan data with a stuffed byte
        0xFF, 0xFF, EOI, // a fill byte and the end
    ];

    #[test]
    fn size_and_end_are_read_past_metadata_that_looks_like_markers() {
        assert_eq!(frame_size(&FILE), Some((0x0304, 0x0102)));
        assert!(has_end(&FILE));
    }

    #[test]
    fn every_shorter_file_has_no_end() {
        for len in 0..FILE.len() {
            assert!(!has_end(&FILE[..len]), "{len}");
        }
    }
}
