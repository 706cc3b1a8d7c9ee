use image::ImageDecoder;
use image::metadata::Orientation;

/// How the image is to be turned: EXIF's word first, else XMP's, as Pillow's `getexif` has it.
///
/// Metadata that cannot be read says nothing, as in Pillow.
pub(super) fn of(decoder: &mut impl ImageDecoder) -> Orientation {
    let exif = decoder.exif_metadata().ok().flatten();
    let from_exif = exif.as_deref().and_then(Orientation::from_exif_chunk);
    from_exif
        .or_else(|| {
            let xmp = decoder.xmp_metadata().ok().flatten()?;
            from_xmp(&xmp)
        })
        .unwrap_or(Orientation::NoTransforms)
}

/// `tiff:Orientation`, as an attribute or as an element.
fn from_xmp(xmp: &[u8]) -> Option<Orientation> {
    const NAME: &[u8] = b"tiff:Orientation";
    let digit = xmp.windows(NAME.len()).enumerate().find_map(|(at, window)| {
        let rest = (window == NAME).then(|| &xmp[at + NAME.len()..])?;
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        value.first().filter(|byte| byte.is_ascii_digit())
    })?;
    Orientation::from_exif(digit - b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn xmp_orientation_is_found_as_attribute_and_as_element() {
        assert_eq!(from_xmp(b"<x tiff:Orientation=\"6\"/>"), Some(Orientation::Rotate90));
        assert_eq!(
            from_xmp(b"<tiff:Orientation>3</tiff:Orientation>"),
            Some(Orientation::Rotate180)
        );
        assert_eq!(from_xmp(b"<tiff:Orientation>9<"), None);
        assert_eq!(from_xmp(b"tiff:Orientation"), None);
    }
}
