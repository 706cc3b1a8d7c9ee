use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;

/// The threads of one worker, each with memory of its own that is kept from pass to pass.
///
/// A team of one runs on the caller's thread.
#[derive(Debug)]
pub(super) struct Team {
    pool: Option<rayon::ThreadPool>,
    scratch: Vec<Mutex<Scratch>>,
}

/// Buffers of one thread. They only grow, to the size that the largest pass needed.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) normed: Buffer,
    pub(super) attended: Buffer,
    pub(super) wide: Buffer,
    pub(super) gate: Buffer,
    pub(super) up: Buffer,
    pub(super) out: Buffer,
    pub(super) attention: AttentionScratch,
}

/// What attention needs of it.
#[derive(Debug, Default)]
pub(super) struct AttentionScratch {
    pub(super) queries: Buffer,
    pub(super) scores: Buffer,
    pub(super) mixed: Buffer,
    pub(super) sums: Buffer,
    pub(super) page: Buffer,
}

/// f32 that begin at a cache line.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    values: Vec<f32>,
    start: usize,
}

/// Elements of a cache line.
const LINE: usize = 16;

// === impl Team ===

impl Team {
    /// `threads` threads, at least one.
    pub(super) fn new(threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let pool = if threads == 1 {
            None
        } else {
            let builder = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|i| format!("sleuth-team-{i}"));
            Some(builder.build().map_err(io::Error::other)?)
        };
        Ok(Self { pool, scratch: (0..threads).map(|_| Mutex::default()).collect() })
    }

    /// How many threads work.
    pub(super) fn threads(&self) -> usize {
        self.scratch.len()
    }

    /// Bytes that the threads hold for later passes.
    pub(super) fn scratch_bytes(&self) -> u64 {
        self.scratch.iter().map(|s| lock(s).bytes()).sum()
    }

    /// Runs every task once, each on some thread. The order is not fixed, so tasks must not depend
    /// on one another.
    pub(super) fn run<T: Send>(&self, tasks: Vec<T>, work: impl Fn(T, &mut Scratch) + Sync) {
        let Some(pool) = &self.pool else {
            let mut scratch = lock(&self.scratch[0]);
            return tasks.into_iter().for_each(|task| work(task, &mut scratch));
        };
        pool.install(|| {
            tasks.into_par_iter().with_max_len(1).for_each(|task| {
                let thread = rayon::current_thread_index().unwrap_or(0);
                work(task, &mut lock(&self.scratch[thread]));
            });
        });
    }
}

/// Tasks are pure arithmetic: after a panic the buffers hold garbage, as they do before any task.
fn lock(scratch: &Mutex<Scratch>) -> MutexGuard<'_, Scratch> {
    scratch.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl Scratch ===

impl Scratch {
    pub(super) fn bytes(&self) -> u64 {
        let AttentionScratch { queries, scores, mixed, sums, page } = &self.attention;
        let buffers = [&self.normed, &self.attended, &self.wide, &self.gate, &self.up, &self.out];
        let own = buffers.into_iter().chain([queries, scores, mixed, sums, page]);
        own.map(Buffer::bytes).sum()
    }
}

// === impl Buffer ===

impl Buffer {
    /// The first `len` elements, which hold whatever was left there.
    pub(super) fn room(&mut self, len: usize) -> &mut [f32] {
        if self.values.len() < len + LINE {
            // Exactly, so that what a pass needs can be told beforehand.
            self.values = Vec::new();
            self.values.reserve_exact(len + LINE);
            self.values.resize(len + LINE, 0.0);
            self.start = self.values.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        }
        &mut self.values[self.start..self.start + len]
    }

    /// Bytes of a buffer that was asked for `len` elements.
    pub(super) const fn bytes_for(len: usize) -> u64 {
        ((len + LINE) * size_of::<f32>()) as u64
    }

    pub(super) fn bytes(&self) -> u64 {
        (self.values.capacity() * size_of::<f32>()) as u64
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for threads in [1, 2, 5] {
            let team = Team::new(threads).unwrap();
            assert_eq!(team.threads(), threads);
            let ran: Vec<AtomicUsize> = (0..100).map(|_| AtomicUsize::new(0)).collect();
            team.run((0..100).collect(), |task: usize, _| {
                ran[task].fetch_add(1, Ordering::Relaxed);
            });
            assert!(ran.iter().all(|n| n.load(Ordering::Relaxed) == 1));
        }
    }

    #[test]
    fn a_buffer_begins_at_a_line_and_never_shrinks() {
        let mut buffer = Buffer::default();
        for len in [5, 1000, 7] {
            let room = buffer.room(len);
            assert_eq!((room.len(), room.as_ptr() as usize % 64), (len, 0));
        }
        assert_eq!(buffer.bytes(), Buffer::bytes_for(1000));
    }
}
