/// Names what an image and a prompt become under a version: the same digest, the same keys and
/// values. Replicas tell routers of the prefixes they hold by it (`ReplicaService.WatchLoad`).
///
/// BLAKE3 of the version's length in bytes as eight little-endian bytes, the version, the image
/// file's own BLAKE3, and the prompt; a request without a prompt has the model's.
pub fn prefix_digest(version: &str, image: &[u8; 32], prompt: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(version.len() as u64).to_le_bytes());
    hasher.update(version.as_bytes());
    hasher.update(image);
    hasher.update(prompt.as_bytes());
    *hasher.finalize().as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_makes_another_prefix() {
        let digests = [
            prefix_digest("v", &[0; 32], "p"),
            prefix_digest("vp", &[0; 32], ""),
            prefix_digest("v", &[1; 32], "p"),
            prefix_digest("v", &[0; 32], "q"),
        ];
        for (place, digest) in digests.iter().enumerate() {
            assert!(!digests[..place].contains(digest));
        }
        assert_eq!(digests[0], prefix_digest("v", &[0; 32], "p"));
    }
}
