//! The wire of Sleuth: messages, clients and servers generated from `proto/sleuth/v1`.
//!
//! Nothing here is written by hand; `cargo xtask codegen` writes `src/gen`.

/// Package `sleuth.v1`.
pub mod v1 {
    #![expect(
        clippy::all,
        clippy::pedantic,
        clippy::allow_attributes,
        clippy::allow_attributes_without_reason,
        unused_qualifications,
        reason = "generated code has its own style"
    )]

    include!("gen/sleuth.v1.rs");
}

/// The files of `proto/` and all they import, as an encoded `google.protobuf.FileDescriptorSet`.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("gen/descriptor.bin");
