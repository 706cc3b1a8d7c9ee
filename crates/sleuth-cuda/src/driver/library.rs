#![expect(unsafe_code, reason = "opens libcuda")]

use std::ffi::c_void;
use std::sync::OnceLock;

use libloading::Library;

/// The names that cudarc tries too, which panics where it finds none.
const NAMES: &[&str] =
    if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// libcuda, if it is there; kept open, so that it is not unloaded and loaded again. A library of its name
/// without its first function is none.
pub(super) fn library() -> Option<&'static Library> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    // SAFETY: libcuda's initialisers do nothing but set up the library; it is never closed.
    let open = |name: &&str| unsafe { Library::new(*name) }.ok();
    // SAFETY: the symbol is not called.
    let is_real = |library: &Library| unsafe { library.get::<*mut c_void>(c"cuInit") }.is_ok();
    LIBRARY.get_or_init(|| NAMES.iter().filter_map(open).find(is_real)).as_ref()
}
