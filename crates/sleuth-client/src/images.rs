use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

/// Images that were put, within a limit of bytes; the oldest leave first.
#[derive(Debug)]
pub(crate) struct KeptImages {
    limit: u64,
    bytes: u64,
    images: HashMap<[u8; 32], Bytes>,
    order: VecDeque<[u8; 32]>,
}

// === impl KeptImages ===

impl KeptImages {
    pub(crate) fn new(limit: u64) -> Self {
        Self { limit, bytes: 0, images: HashMap::new(), order: VecDeque::new() }
    }

    pub(crate) fn keep(&mut self, digest: [u8; 32], data: Bytes) {
        let bytes = data.len() as u64;
        if bytes > self.limit || self.images.contains_key(&digest) {
            return;
        }
        self.bytes += bytes;
        self.images.insert(digest, data);
        self.order.push_back(digest);
        while self.bytes > self.limit
            && let Some(oldest) = self.order.pop_front()
            && let Some(data) = self.images.remove(&oldest)
        {
            self.bytes -= data.len() as u64;
        }
    }

    pub(crate) fn get(&self, digest: &[u8; 32]) -> Option<Bytes> {
        self.images.get(digest).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_images_leave_first() {
        let mut kept = KeptImages::new(10);
        for n in 0..4 {
            kept.keep([n; 32], Bytes::from(vec![n; 4]));
            kept.keep([n; 32], Bytes::from(vec![n; 4]));
        }
        kept.keep([9; 32], Bytes::from(vec![9; 11]));
        let held: Vec<u8> = (0..10).filter(|&n| kept.get(&[n; 32]).is_some()).collect();
        assert_eq!((held, kept.bytes), (vec![2, 3], 8));
    }
}
