//! Files that are read again when they change.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use crate::SecurityError;

/// The latest value that could be read. Clones see the same one.
pub(crate) struct Latest<T>(watch::Receiver<Arc<T>>);

/// Where a value comes from.
pub(crate) struct Source<T> {
    what: &'static str,
    files: Vec<PathBuf>,
    read: Box<dyn Fn() -> Result<T, SecurityError> + Send + Sync>,
    sender: watch::Sender<Arc<T>>,
    seen: Vec<Option<Stamp>>,
}

/// Asks a server to read its certificates and credentials again, changed or not.
#[derive(Clone, Debug)]
pub struct Reloader {
    asked: watch::Sender<u64>,
}

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    node: u64,
}

// === impl Latest ===

impl<T> Latest<T> {
    pub(crate) fn get(&self) -> Arc<T> {
        Arc::clone(&self.0.borrow())
    }
}

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

// === impl Source ===

impl<T: Send + Sync + 'static> Source<T> {
    /// Reads the value for the first time. `what` names it in logs.
    pub(crate) fn open(
        what: &'static str,
        files: Vec<PathBuf>,
        read: impl Fn() -> Result<T, SecurityError> + Send + Sync + 'static,
    ) -> Result<(Self, Latest<T>), SecurityError> {
        // Before reading: what changes meanwhile is read again.
        let seen = files.iter().map(|file| Stamp::of(file)).collect();
        let (sender, receiver) = watch::channel(Arc::new(read()?));
        Ok((Self { what, files, read: Box::new(read), sender, seen }, Latest(receiver)))
    }

    /// Reads the value again whenever a file has changed or somebody asks; never ends. What
    /// cannot be read is logged, and the old value stays.
    pub(crate) async fn follow(
        mut self,
        every: Duration,
        mut asked: watch::Receiver<u64>,
    ) -> Infallible {
        let mut ticks = interval(every.max(Duration::from_millis(10)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let forced = tokio::select! {
                _ = ticks.tick() => false,
                Ok(()) = asked.changed() => true,
            };
            // Files may lie on slow or hanging storage.
            let looked = tokio::task::spawn_blocking(move || {
                self.look(forced);
                self
            });
            match looked.await {
                Ok(source) => self = source,
                // The runtime is going down.
                Err(_) => return std::future::pending().await,
            }
        }
    }

    fn look(&mut self, forced: bool) {
        let now: Vec<_> = self.files.iter().map(|file| Stamp::of(file)).collect();
        if !forced && now == self.seen {
            return;
        }
        self.seen = now;
        match (self.read)() {
            Ok(value) => {
                self.sender.send_replace(Arc::new(value));
                tracing::info!(what = self.what, "read again");
            }
            Err(error) => {
                let error = chain(&error);
                tracing::error!(what = self.what, error, "cannot be read; the old one stays");
            }
        }
    }
}

// === impl Reloader ===

impl Reloader {
    pub(crate) fn new() -> Self {
        Self { asked: watch::Sender::new(0) }
    }

    /// Has everything read again soon.
    pub fn reload(&self) {
        self.asked.send_modify(|n| *n = n.wrapping_add(1));
    }

    pub(crate) fn asked(&self) -> watch::Receiver<u64> {
        self.asked.subscribe()
    }
}

// === impl Stamp ===

impl Stamp {
    /// `None` where the file is not there.
    fn of(file: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(file).ok()?;
        #[cfg(unix)]
        let node = std::os::unix::fs::MetadataExt::ino(&metadata);
        #[cfg(not(unix))]
        let node = 0;
        Some(Self { modified: metadata.modified().ok(), bytes: metadata.len(), node })
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl<T> fmt::Debug for Source<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("what", &self.what).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn number(file: &Path) -> Result<u32, SecurityError> {
        let fail = |source| SecurityError::Read { path: file.to_owned(), source };
        let text = fs::read_to_string(file).map_err(fail)?;
        text.parse().map_err(|_| fail(std::io::Error::other("no number")))
    }

    async fn becomes(latest: &Latest<u32>, wanted: u32) {
        for _ in 0..4000 {
            if *latest.get() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("is {} and not {wanted}", latest.get());
    }

    #[tokio::test]
    async fn a_changed_file_is_read_and_a_broken_one_is_not_taken() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let path = file.clone();
        let (source, latest) =
            Source::open("number", vec![file.clone()], move || number(&path)).unwrap();
        let reloader = Reloader::new();
        let task = tokio::spawn(source.follow(Duration::from_millis(10), reloader.asked()));
        assert_eq!(*latest.get(), 1);
        fs::write(&file, "22").unwrap();
        becomes(&latest, 22).await;
        fs::write(&file, "broken").unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(*latest.get(), 22);
        fs::remove_file(&file).unwrap();
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(*latest.get(), 22);
        fs::write(&file, "3").unwrap();
        becomes(&latest, 3).await;
        task.abort();
    }

    #[tokio::test]
    async fn whoever_asks_has_it_read_again_though_nothing_changed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("number");
        fs::write(&file, "1").unwrap();
        let reads = std::sync::atomic::AtomicU32::new(0);
        let (source, latest) = Source::open("count", vec![file], move || {
            Ok(reads.fetch_add(1, std::sync::atomic::Ordering::SeqCst))
        })
        .unwrap();
        let reloader = Reloader::new();
        let task = tokio::spawn(source.follow(Duration::from_hours(1), reloader.asked()));
        assert_eq!(*latest.get(), 0);
        reloader.reload();
        becomes(&latest, 1).await;
        task.abort();
    }
}
