#![expect(unsafe_code, reason = "calls the stand-in")]

use std::ffi::{CString, c_char, c_int, c_uint};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use libloading::{Library, Symbol};
use sleuth_cuda::{Discovery, Health, Key, Pool, PoolSettings, Segment, discover};

/// The stand-in, to one test at a time. Asserts at its end that no rule was broken and nothing is
/// left.
pub(crate) struct Standin {
    _turn: MutexGuard<'static, ()>,
}

/// What copies the stand-in was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Copies {
    pub(crate) direct: u64,
    pub(crate) staged: u64,
    pub(crate) pinned: u64,
    pub(crate) pageable: u64,
}

static TURN: Mutex<()> = Mutex::new(());

/// Builds the stand-in and opens it under the name that cudarc will look for.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let path = build();
        // SAFETY: it has no initialisers. glibc answers later requests for its soname with it.
        let library = unsafe { Library::new(&path) }.unwrap();
        // What is open needs no file.
        std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
        library
    })
}

fn build() -> PathBuf {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standin");
    let folder =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("standin-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let library = folder.join("libcuda.so");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-std=c11", "-O1", "-Wall", "-Wextra", "-Werror"])
        .args(["-fvisibility=hidden", "-pthread", "-Wl,-soname,libcuda.so", "-o"])
        .arg(&library)
        .args(["state.c", "device.c", "memory.c", "stream.c"].map(|file| sources.join(file)))
        .status()
        .unwrap();
    assert!(built.success(), "the C compiler refused the stand-in");
    library
}

fn call<F: Copy>(name: &str) -> F {
    // SAFETY: each caller names the type that the function has in state.c.
    let function: Symbol<'_, F> = unsafe { library().get(name.as_bytes()) }.unwrap();
    *function
}

macro_rules! standin {
    ($($rust:ident = $c:ident($($name:ident: $type:ty),*);)*) => {
        $(pub(crate) fn $rust(&self, $($name: $type),*) {
            let function: unsafe extern "C" fn($($type),*) = call(stringify!($c));
            // SAFETY: the types are those of state.c.
            unsafe { function($($name),*) }
        })*
    };
}

#[expect(clippy::unused_self, reason = "who calls the stand-in has the turn")]
impl Standin {
    pub(crate) fn new(devices: usize, bytes: usize) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let reset: unsafe extern "C" fn(usize, usize) = call("standin_reset");
        // SAFETY: as declared in state.c.
        unsafe { reset(devices, bytes) };
        Self { _turn: turn }
    }

    standin! {
        driver = standin_driver(version: c_int, init: u32);
        unopened = standin_unopened(device: c_int, code: u32);
        capability = standin_capability(device: c_int, major: c_int, minor: c_int);
        strict = standin_strict(strict: c_int);
        can_read = standin_can_read(reader: c_int, owner: c_int, can: c_int);
        withdraw = standin_withdraw(reader: c_int, owner: c_int);
        foreign = standin_foreign(device: c_int, bytes: usize);
        lose = standin_lose(device: c_int, code: u32);
    }

    /// The `nth` call from now fails once.
    pub(crate) fn fail(&self, call_: &str, device: c_int, nth: c_int, code: u32) {
        let name = CString::new(call_).unwrap();
        let fail: unsafe extern "C" fn(*const c_char, c_int, c_int, u32) = call("standin_fail");
        // SAFETY: as declared in state.c; it copies the name.
        unsafe { fail(name.as_ptr(), device, nth, code) }
    }

    /// At the `nth` call from now `victim` is lost for good.
    pub(crate) fn lose_at(&self, call_: &str, device: c_int, nth: c_int, victim: c_int, code: u32) {
        let name = CString::new(call_).unwrap();
        let lose: unsafe extern "C" fn(*const c_char, c_int, c_int, c_int, u32) =
            call("standin_lose_at");
        // SAFETY: as above.
        unsafe { lose(name.as_ptr(), device, nth, victim, code) }
    }

    /// The `nth` copy from now arrives with a wrong bit.
    pub(crate) fn spoil(&self, call_: &str, device: c_int, nth: c_int) {
        let name = CString::new(call_).unwrap();
        let spoil: unsafe extern "C" fn(*const c_char, c_int, c_int) = call("standin_spoil");
        // SAFETY: as above.
        unsafe { spoil(name.as_ptr(), device, nth) }
    }

    pub(crate) fn delay(&self, call_: &str, by: Duration) {
        let name = CString::new(call_).unwrap();
        let delay: unsafe extern "C" fn(*const c_char, c_uint) = call("standin_delay");
        // SAFETY: as above.
        unsafe { delay(name.as_ptr(), by.as_micros() as c_uint) }
    }

    pub(crate) fn calls(&self, call_: &str, device: c_int) -> u64 {
        let name = CString::new(call_).unwrap();
        let calls: unsafe extern "C" fn(*const c_char, c_int) -> u64 = call("standin_calls");
        // SAFETY: as above.
        unsafe { calls(name.as_ptr(), device) }
    }

    /// Bytes that are allocated on a device.
    pub(crate) fn used(&self, device: c_int) -> u64 {
        let used: unsafe extern "C" fn(c_int) -> u64 = call("standin_used");
        // SAFETY: as above.
        unsafe { used(device) }
    }

    pub(crate) fn copies(&self) -> Copies {
        let copies: unsafe extern "C" fn(*mut u64, *mut u64, *mut u64, *mut u64) =
            call("standin_copies");
        let mut found = Copies::default();
        // SAFETY: as above; it writes four numbers.
        unsafe {
            copies(
                &raw mut found.direct,
                &raw mut found.staged,
                &raw mut found.pinned,
                &raw mut found.pageable,
            );
        }
        found
    }

    fn problems(&self) -> String {
        let mut text = vec![0_u8; 8192];
        let problems: unsafe extern "C" fn(*mut c_char, usize) -> c_int = call("standin_problems");
        // SAFETY: it writes at most as many bytes, with a zero at the end.
        unsafe { problems(text.as_mut_ptr().cast(), text.len()) };
        let end = text.iter().position(|byte| *byte == 0).unwrap();
        String::from_utf8_lossy(&text[..end]).into_owned()
    }

    /// All devices in a pool.
    pub(crate) fn pool(&self, settings: PoolSettings) -> (Discovery, Pool) {
        let discovery = discover();
        let ordinals: Vec<_> = discovery.devices.iter().map(|device| device.ordinal).collect();
        let pool = Pool::open(&discovery, &ordinals, settings);
        assert_eq!(pool.left_out(), []);
        (discovery, pool)
    }
}

impl Drop for Standin {
    fn drop(&mut self) {
        let problems = self.problems();
        if !std::thread::panicking() {
            assert_eq!(problems, "", "rules were broken or something is left");
        }
    }
}

pub(crate) fn key(name: u8) -> Key {
    Key([name; 32])
}

/// Bytes in which no two neighbourhoods are alike.
pub(crate) fn content(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

pub(crate) fn store(pool: &Pool, on: u32, name: u8, bytes: &[u8]) -> Segment {
    let bytes = bytes.to_vec();
    let job = move |owner: &mut sleuth_cuda::Owner| owner.store(key(name), &bytes, None);
    pool.device(on).unwrap().run(job).wait().unwrap().unwrap()
}

pub(crate) fn read(pool: &Pool, segment: &Segment) -> Vec<u8> {
    let copy = segment.clone();
    let device = pool.device(segment.ordinal()).unwrap();
    device.run(move |owner| owner.read(&copy)).wait().unwrap().unwrap()
}

/// Waits until a device is out of service.
pub(crate) fn wait_until_lost(pool: &Pool, ordinal: u32) {
    let device = pool.device(ordinal).unwrap();
    let mut seen = pool.health_version();
    for _ in 0..100 {
        if matches!(device.health(), Health::Lost(_)) && seen >= 2 {
            return;
        }
        seen = pool.wait_for_health(seen, Duration::from_millis(100));
    }
    panic!("device {ordinal} is {:?}", device.health());
}

/// Waits for what another thread is about to do, and not forever.
pub(crate) fn until(done: impl Fn() -> bool) {
    for _ in 0..20_000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("it did not happen");
}

/// Small chunks, so that a few bytes are many of them.
pub(crate) fn small_chunks() -> PoolSettings {
    PoolSettings { chunk_bytes: 64, ..PoolSettings::default() }
}
