//! The only place that reads or sets environment variables.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Holds the key of a corrector's endpoint: a secret, and so no setting that could be printed.
pub(crate) const ENDPOINT_KEY: &str = "SLEUTH_ENDPOINT_KEY";
/// Holds a caller's token: a secret, and so no argument, which others could read.
pub(crate) const TOKEN: &str = "SLEUTH_TOKEN";
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// Keeps candle's element-wise pool at one thread unless the user chose otherwise.
///
/// That pool spins at a barrier after every operation. Beside the matrix products' own threads it
/// costs more than it wins: 40 % of the samples of a training profile stood in that barrier. The
/// library has no other switch.
pub(crate) fn limit_candle_threads() {
    if env::var_os(CANDLE_THREADS).is_none() {
        #[expect(
            unsafe_code,
            clippy::disallowed_methods,
            reason = "candle reads this variable and has no other switch"
        )]
        // SAFETY: called first in `main`, while the process has one thread.
        unsafe {
            env::set_var(CANDLE_THREADS, "1");
        }
    }
}

/// Keeps freed memory for a while before it goes back to the system, unless the user chose
/// otherwise (`MIMALLOC_PURGE_DELAY`).
///
/// The allocator's own delay is 10 ms. Between batches a server frees and takes the same buffers
/// again, and a fifth of its threads' time went into the kernel's clearing of pages.
pub(crate) fn keep_freed_memory() {
    /// `mi_option_purge_delay`, which the bindings leave out.
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
    const MILLISECONDS: std::ffi::c_long = 1000;
    #[expect(unsafe_code, reason = "the allocator's option has no safe binding")]
    // SAFETY: called first in `main`, while the process has one thread.
    unsafe {
        libmimalloc_sys::mi_option_set_default(PURGE_DELAY, MILLISECONDS);
    }
}

/// Variables that may be settings: all that begin with `SLEUTH_`. One that is not Unicode is given
/// with replacements, so that it is refused by name.
pub(crate) fn settings() -> Vec<(String, String)> {
    let text = |text: OsString| text.to_string_lossy().into_owned();
    let all = env::vars_os().map(|(name, value)| (text(name), text(value)));
    let mut ours: Vec<_> = all.filter(|(name, _)| name.starts_with("SLEUTH_")).collect();
    ours.sort();
    ours
}

/// The token that operators' calls carry.
pub(crate) fn token() -> Option<String> {
    env::var(TOKEN).ok()
}

/// The key of a corrector's endpoint.
pub(crate) fn endpoint_key() -> Option<String> {
    env::var(ENDPOINT_KEY).ok()
}

/// Folders in which `models/mini` may lie: the working folder and those above it, then the
/// binary's.
pub(crate) fn roots() -> Vec<PathBuf> {
    let starts = [env::current_dir().ok(), env::current_exe().ok()];
    starts.iter().flatten().flat_map(|p| p.ancestors()).map(PathBuf::from).collect()
}

/// Cores that this process may use.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
