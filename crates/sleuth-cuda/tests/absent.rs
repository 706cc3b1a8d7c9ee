//! A process in which nobody has put libcuda.
#![cfg(feature = "cuda")]
#![expect(unsafe_code, reason = "looks for the library by itself")]

use sleuth_cuda::{Driver, NoDriver, Pool, PoolSettings, discover};

#[test]
fn without_the_library_there_is_one_clear_reason_and_no_panic() {
    // The linker's empty library of that name does not count.
    let there = ["libcuda.so.1", "libcuda.so"].iter().any(|name| {
        // SAFETY: libcuda's initialisers do nothing but set up the library.
        let library = unsafe { libloading::Library::new(*name) };
        // SAFETY: the symbol is not called.
        library.is_ok_and(|l| unsafe { l.get::<*mut std::ffi::c_void>(c"cuInit") }.is_ok())
    });
    let discovery = discover();
    assert_eq!(discovery.driver == Driver::Absent(NoDriver::NoLibrary), !there);
    if let Driver::Absent(reason) = &discovery.driver
        && !there
    {
        assert_eq!(
            reason.to_string(),
            "libcuda.so.1 was not found: install the NVIDIA driver, or run the container with its GPU runtime"
        );
        assert!(discovery.devices.is_empty());
        let pool = Pool::open(&discovery, &[0], PoolSettings::default());
        assert_eq!((pool.devices().count(), pool.left_out().len()), (0, 1));
    }
}
