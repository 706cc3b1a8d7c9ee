//! libcuda is opened when its first function is called, not when the process starts.
//!
//! Where candle is on too, cudarc is linked with libcuda, and the system would start no process without a
//! driver. So every function of libcuda is defined here: it looks the real one up and jumps to it. The
//! linker then has no use for the library, and names it nowhere. Without a driver nobody calls a function,
//! as discovery looks for the library first; who does all the same ends the process with a message.
//!
//! Only on x86-64 with Linux; elsewhere libcuda has to be there.
#![expect(unsafe_code, reason = "defines libcuda's functions and jumps to the real ones")]

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicPtr, Ordering};

use super::library::library;

include!(concat!(env!("OUT_DIR"), "/functions.rs"));

/// Where each function is, once it has been called.
#[unsafe(no_mangle)]
static SLEUTH_CUDA_ADDRESSES: [AtomicPtr<c_void>; COUNT] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; COUNT];

/// The place of a function in libcuda; called by its stand-in the first time.
#[unsafe(no_mangle)]
extern "C" fn sleuth_cuda_address(index: u32) -> *mut c_void {
    let name = NAMES[index as usize];
    let Some(library) = library() else { give_up(name, "libcuda is not there") };
    // SAFETY: the symbol is only turned into an address, whatever its type.
    let found = unsafe { library.get::<*mut c_void>(name.to_bytes_with_nul()) };
    let Ok(symbol) = found else { give_up(name, "the driver lacks this function") };
    let address = *symbol;
    SLEUTH_CUDA_ADDRESSES[index as usize].store(address, Ordering::Release);
    address
}

/// Nothing can be returned for a function whose result is not known.
fn give_up(name: &CStr, why: &str) -> ! {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{}: {why}", name.to_string_lossy());
    std::process::abort()
}

/// Keeps the stand-ins in the program: a linker takes nothing that nobody names.
pub(crate) fn keep() {
    std::hint::black_box(sleuth_cuda_address as extern "C" fn(u32) -> *mut c_void);
}
