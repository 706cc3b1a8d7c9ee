use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sleuth_core::{ErrorClass, Failure, Reason};

use crate::Caller;
use crate::weighted::Weighted;

/// Image files that tenants put before they name them by digest, within a limit of bytes. What
/// was not used for longest leaves first.
///
/// A tenant finds only what it put itself: who knows another's digest learns nothing.
#[derive(Debug)]
pub struct ImageStore {
    max_image_bytes: u64,
    state: Mutex<State>,
}

/// An image on its way in. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct Upload {
    store: Arc<ImageStore>,
    key: Key,
    size: u64,
    data: BytesMut,
    hasher: blake3::Hasher,
}

/// What putting an image begins with.
#[derive(Debug)]
pub enum Put {
    /// The image is here already.
    Present,
    /// The image is wanted.
    Wanted(Box<Upload>),
}

/// What the store holds and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ImageStats {
    /// Images held.
    pub images: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes that uploads under way may take.
    pub uploading_bytes: u64,
    /// Images found when items named them.
    pub hits: u64,
    /// Images not found when items named them.
    pub misses: u64,
    /// Images that left because room was short.
    pub evicted: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    tenant: Arc<str>,
    digest: [u8; 32],
}

#[derive(Debug)]
struct State {
    held: Weighted<Key, Bytes>,
    /// What each tenant's uploads may still bring.
    uploading: HashMap<Arc<str>, u64>,
    uploading_bytes: u64,
    hits: u64,
    misses: u64,
}

/// When to try again where uploads take all the room.
const RETRY_AFTER: Duration = Duration::from_secs(1);

// === impl ImageStore ===

impl ImageStore {
    /// A store of at most `max_bytes`, uploads included, for images of at most `max_image_bytes`.
    pub fn new(max_bytes: u64, max_image_bytes: u64) -> Self {
        let state = State {
            held: Weighted::new(max_bytes),
            uploading: HashMap::new(),
            uploading_bytes: 0,
            hits: 0,
            misses: 0,
        };
        Self { max_image_bytes, state: Mutex::new(state) }
    }

    /// Begins to put an image of `size` bytes.
    pub fn put(
        self: &Arc<Self>,
        caller: &Caller,
        digest: [u8; 32],
        size: u64,
    ) -> Result<Put, Failure> {
        if size == 0 {
            let detail = "an image has at least one byte";
            return Err(Failure::new(ErrorClass::InvalidRequest, Reason::IMAGE_MISSING, detail)
                .at("size_bytes"));
        }
        let mut state = self.lock();
        let most = self.max_image_bytes.min(state.held.limit());
        if size > most {
            let detail = format!("the image has {size} bytes; at most {most}");
            return Err(Failure::new(ErrorClass::TooLarge, Reason::IMAGE_TOO_LARGE, detail)
                .at("size_bytes"));
        }
        let key = Key { tenant: Arc::clone(&caller.tenant), digest };
        if state.held.get(&key).is_some() {
            return Ok(Put::Present);
        }
        state.reserve(&key.tenant, size)?;
        drop(state);
        let (store, data, hasher) = (Arc::clone(self), BytesMut::new(), blake3::Hasher::new());
        Ok(Put::Wanted(Box::new(Upload { store, key, size, data, hasher })))
    }

    /// Which of these images the caller could name now.
    pub fn has(&self, caller: &Caller, digests: &[[u8; 32]]) -> Vec<bool> {
        let state = self.lock();
        let key = |digest: &[u8; 32]| Key { tenant: Arc::clone(&caller.tenant), digest: *digest };
        digests.iter().map(|digest| state.held.holds(&key(digest))).collect()
    }

    /// The file of an image that an item names.
    pub fn get(&self, caller: &Caller, digest: [u8; 32]) -> Result<Bytes, Failure> {
        let key = Key { tenant: Arc::clone(&caller.tenant), digest };
        let mut state = self.lock();
        if let Some(data) = state.held.get(&key).cloned() {
            state.hits += 1;
            return Ok(data);
        }
        state.misses += 1;
        let detail = "no image of that digest is held here; put it, or send its data";
        Err(Failure::new(ErrorClass::Unknown, Reason::IMAGE_UNKNOWN, detail)
            .at("context.image.blake3"))
    }

    /// What is held, and what was done.
    pub fn stats(&self) -> ImageStats {
        let state = self.lock();
        ImageStats {
            images: state.held.len(),
            bytes: state.held.bytes(),
            uploading_bytes: state.uploading_bytes,
            hits: state.hits,
            misses: state.misses,
            evicted: state.held.evicted(),
        }
    }

    /// Nothing panics while the lock is held, so a poisoned state is still whole.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl State ===

impl State {
    /// Takes room for an upload. All uploads together take at most half of the store, and those
    /// of one tenant at most half of that, unless nothing else is on its way.
    fn reserve(&mut self, tenant: &Arc<str>, size: u64) -> Result<(), Failure> {
        let half = self.held.limit() / 2;
        let own = self.uploading.get(tenant).copied().unwrap_or(0);
        let over = |used: u64, most: u64| used > 0 && used.saturating_add(size) > most;
        if over(self.uploading_bytes, half) || over(own, half / 2) {
            let detail = "other uploads take all the room; try again after the given time";
            return Err(Failure::new(ErrorClass::Overload, Reason::IMAGE_STORE_FULL, detail)
                .retry_after(RETRY_AFTER));
        }
        self.uploading_bytes += size;
        *self.uploading.entry(Arc::clone(tenant)).or_default() += size;
        let left = self.held.limit() - self.uploading_bytes.min(self.held.limit());
        self.held.shrink_to(left);
        Ok(())
    }

    fn release(&mut self, tenant: &Arc<str>, size: u64) {
        self.uploading_bytes -= size;
        if let Some(own) = self.uploading.get_mut(tenant) {
            *own -= size;
            if *own == 0 {
                self.uploading.remove(tenant);
            }
        }
    }
}

// === impl Upload ===

impl Upload {
    /// Takes the next bytes of the file.
    pub fn write(&mut self, chunk: &[u8]) -> Result<(), Failure> {
        let total = self.data.len() as u64 + chunk.len() as u64;
        if total > self.size {
            return Err(mismatch("has more bytes than its header says"));
        }
        self.hasher.update(chunk);
        self.data.extend_from_slice(chunk);
        Ok(())
    }

    /// Checks length and digest, and puts the image into the store.
    pub fn finish(mut self) -> Result<(), Failure> {
        if self.data.len() as u64 != self.size {
            return Err(mismatch("has fewer bytes than its header says"));
        }
        if *self.hasher.finalize().as_bytes() != self.key.digest {
            return Err(mismatch("has another digest than its header says"));
        }
        let data = std::mem::take(&mut self.data).freeze();
        let mut state = self.store.lock();
        state.release(&self.key.tenant, std::mem::take(&mut self.size));
        let bytes = data.len() as u64;
        state.held.insert(self.key.clone(), data, bytes);
        Ok(())
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        let size = std::mem::take(&mut self.size);
        if size > 0 {
            self.store.lock().release(&self.key.tenant, size);
        }
    }
}

fn mismatch(what: &str) -> Failure {
    let (class, reason) = (ErrorClass::InvalidRequest, Reason::IMAGE_MISMATCH);
    Failure::new(class, reason, format!("the image {what}")).at("blake3")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(store: &Arc<ImageStore>, caller: &Caller, data: &[u8]) -> Box<Upload> {
        match store.put(caller, *blake3::hash(data).as_bytes(), data.len() as u64).unwrap() {
            Put::Wanted(upload) => upload,
            Put::Present => panic!("it is here"),
        }
    }

    fn put(store: &Arc<ImageStore>, caller: &Caller, data: &[u8]) {
        let mut upload = wanted(store, caller, data);
        for chunk in data.chunks(3) {
            upload.write(chunk).unwrap();
        }
        upload.finish().unwrap();
    }

    #[test]
    fn what_was_put_is_found_by_its_tenant_only() {
        let store = Arc::new(ImageStore::new(100, 50));
        let (a, b) = (Caller::new("a"), Caller::new("b"));
        put(&store, &a, b"an image");
        let digest = *blake3::hash(b"an image").as_bytes();
        assert!(matches!(store.put(&a, digest, 8), Ok(Put::Present)));
        assert_eq!(store.get(&a, digest).unwrap(), b"an image"[..]);
        assert_eq!(store.get(&b, digest).unwrap_err().reason, Reason::IMAGE_UNKNOWN);
        assert_eq!(store.has(&a, &[[0; 32], digest]), [false, true]);
        assert_eq!(store.has(&b, &[digest]), [false]);
        let stats = store.stats();
        assert_eq!((stats.images, stats.bytes, stats.hits, stats.misses), (1, 8, 1, 1));
    }

    #[test]
    fn another_length_or_digest_is_refused_and_leaves_nothing() {
        let store = Arc::new(ImageStore::new(100, 50));
        let caller = Caller::new("");
        let mut long = wanted(&store, &caller, b"abc");
        assert_eq!(long.write(b"abcd").unwrap_err().reason, Reason::IMAGE_MISMATCH);
        let mut short = wanted(&store, &caller, b"abc");
        short.write(b"ab").unwrap();
        assert_eq!(short.finish().unwrap_err().reason, Reason::IMAGE_MISMATCH);
        let mut other = wanted(&store, &caller, b"abc");
        other.write(b"abd").unwrap();
        assert_eq!(other.finish().unwrap_err().reason, Reason::IMAGE_MISMATCH);
        drop(long);
        assert_eq!(store.stats(), ImageStats::default());
        for (size, reason) in [(0, Reason::IMAGE_MISSING), (51, Reason::IMAGE_TOO_LARGE)] {
            assert_eq!(store.put(&caller, [0; 32], size).unwrap_err().reason, reason);
        }
    }

    #[test]
    fn uploads_and_images_together_stay_within_the_limit() {
        let store = Arc::new(ImageStore::new(40, 40));
        let (a, b) = (Caller::new("a"), Caller::new("b"));
        put(&store, &a, &[1; 15]);
        put(&store, &a, &[2; 15]);
        let first = wanted(&store, &a, &[3; 10]);
        let stats = store.stats();
        assert!(stats.bytes + stats.uploading_bytes <= 40);
        let refused = store.put(&a, [9; 32], 1).unwrap_err();
        assert_eq!(refused.reason, Reason::IMAGE_STORE_FULL);
        let second = wanted(&store, &b, &[4; 10]);
        assert!(store.put(&b, [9; 32], 1).unwrap_err().is_retryable());
        drop((first, second));
        assert_eq!(store.stats().uploading_bytes, 0);
        drop(wanted(&store, &a, &[5; 40]));
        assert_eq!((store.stats().bytes, store.stats().evicted), (0, 2));
    }
}
