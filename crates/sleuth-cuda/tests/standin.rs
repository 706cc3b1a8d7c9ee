//! The crate against a stand-in for libcuda, which these tests build with the C compiler.
//!
//! The stand-in (`tests/standin/*.c`) holds and copies real bytes and enforces the rules that the
//! crate promises to keep: calls only in a live context and on the owner's thread, copies done when
//! they are waited for and not before, nothing left at the end. Every test ends with its list of
//! broken rules, which must be empty.
#![cfg(all(feature = "cuda", target_os = "linux"))]

#[cfg(test)]
#[path = "standin/cudarc_memory.rs"]
mod cudarc_memory;
#[cfg(test)]
#[path = "standin/discovery.rs"]
mod discovery;
#[cfg(test)]
#[path = "standin/failures.rs"]
mod failures;
#[cfg(test)]
#[path = "standin/harness.rs"]
mod harness;
#[cfg(test)]
#[path = "standin/memory.rs"]
mod memory;
#[cfg(test)]
#[path = "standin/owners.rs"]
mod owners;
#[cfg(test)]
#[path = "standin/sharing.rs"]
mod sharing;
#[cfg(test)]
#[path = "standin/transfers.rs"]
mod transfers;
