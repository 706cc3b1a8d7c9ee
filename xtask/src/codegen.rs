//! Generates the bindings of `sleuth-proto` from `proto/`, without protoc.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

/// One generated file.
struct Output {
    path: PathBuf,
    bytes: Vec<u8>,
}

/// Writes what changed.
pub(crate) fn write(root: &Path) -> Result<String> {
    let mut written = 0;
    for output in generate(root)? {
        if fs::read(&output.path).ok().as_deref() != Some(&output.bytes) {
            fs::write(&output.path, &output.bytes)
                .with_context(|| format!("write {}", output.path.display()))?;
            written += 1;
        }
    }
    Ok(format!("codegen: {written} files changed"))
}

/// Fails where a committed file is not what would be generated.
pub(crate) fn check(root: &Path) -> Result<String> {
    for output in generate(root)? {
        if fs::read(&output.path).ok().as_deref() != Some(&output.bytes) {
            bail!("{} is stale; run `cargo xtask codegen`", output.path.display());
        }
    }
    Ok("codegen: up to date".to_owned())
}

fn generate(root: &Path) -> Result<Vec<Output>> {
    let include = root.join("proto");
    let files = proto_files(&include)?;
    let target = root.join("crates/sleuth-proto/src/gen");

    // Comments become documentation, so the generator gets source info; clients of reflection
    // have no use for it.
    let mut compiler = protox::Compiler::new([&include])?;
    compiler.include_imports(true).include_source_info(true);
    compiler.open_files(&files)?;
    let scratch = Scratch::new(root)?;
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(&scratch.0)
        .emit_rerun_if_changed(false)
        .compile_fds(compiler.file_descriptor_set())
        .context("generate Rust")?;
    compiler.include_source_info(false);

    let code = fs::read(scratch.0.join("sleuth.v1.rs")).context("read the generated code")?;
    Ok(vec![
        Output { path: target.join("sleuth.v1.rs"), bytes: code },
        Output {
            path: target.join("descriptor.bin"),
            bytes: compiler.encode_file_descriptor_set(),
        },
    ])
}

/// Every `.proto` under `include`, sorted, so that the output does not depend on the disk.
fn proto_files(include: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![include.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "proto") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// A folder under `target/` that goes away with the value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(root: &Path) -> Result<Self> {
        let path = root.join("target").join(format!("codegen-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A folder left behind under `target/` does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_bindings_are_what_the_protos_give() {
        check(&crate::workspace_root().unwrap()).unwrap();
    }
}
