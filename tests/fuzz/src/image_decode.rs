use sleuth_input::{ImageLimits, Preprocessor, decode_rgb};

/// Any bytes as an image file: an error or an image within the limits, never a panic and never more
/// memory than the limits say.
pub fn image_decode(bytes: &[u8]) {
    let limits =
        ImageLimits { max_bytes: 1 << 20, max_pixels: 1 << 20, max_side: 1 << 12, max_frames: 4 };
    let image = match decode_rgb(bytes, &limits) {
        Ok(image) => image,
        Err(error) => {
            assert!(!error.failure().detail.is_empty());
            return;
        }
    };
    let (width, height) = image.dimensions();
    assert!(width > 0 && height > 0);
    assert!(u64::from(width) * u64::from(height) <= limits.max_pixels);
    assert!(width.max(height) <= limits.max_side);
    let config = br#"{"size": {"height": 16, "width": 16}}"#;
    let preprocessor = Preprocessor::from_json(config).expect("a valid configuration");
    let pixels = preprocessor.pixels(&image);
    assert!(pixels.values().iter().all(|x| (-1.0..=1.0).contains(x)));
}
