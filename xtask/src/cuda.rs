//! Type-checks the code behind the feature `cuda` on a machine without a GPU: `nvcc` and the headers
//! come from NVIDIA's Python packages.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// What `nvcc` needs, and what candle's kernels include. candle's build finds nothing newer.
const PACKAGES: [&str; 7] = [
    "nvidia-cuda-nvcc==13.0.88",
    "nvidia-cuda-runtime==13.0.96",
    "nvidia-cuda-cccl==13.0.85",
    "nvidia-cuda-crt==13.0.88",
    "nvidia-nvvm==13.0.88",
    "nvidia-cublas==13.0.2.14",
    "nvidia-curand==10.4.0.35",
];

/// What candle's kernels are compiled for: Hopper.
const COMPUTE_CAPABILITY: &str = "90";

/// Installs the compiler where it is missing, compiles candle's kernels once (about ten minutes on
/// two cores), and checks the workspace with the feature on.
pub(crate) fn check(root: &Path) -> Result<String> {
    let home = toolkit()?;
    let target = root.join("target/cuda");
    let args = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--features",
        "sleuth-cli/cuda",
        "--",
        "-D",
        "warnings",
    ];
    let status = Command::new(cargo())
        .current_dir(root)
        .args(args)
        .env("CUDA_HOME", &home)
        .env("CUDA_PATH", &home)
        .env("CUDA_COMPUTE_CAP", COMPUTE_CAPABILITY)
        .env("CARGO_TARGET_DIR", &target)
        .env("PATH", with_nvcc(&home)?)
        .status()?;
    ensure!(status.success(), "cargo {} failed", args.join(" "));
    Ok(format!("the workspace type-checks with the feature `cuda`, by nvcc in {}", home.display()))
}

/// Runs the checks of this machine's GPUs, and writes what came of them to `target/gpu-check.json`. The
/// toolkit is the machine's own.
pub(crate) fn gpu_check(root: &Path, bench: &[&str]) -> Result<String> {
    ensure!(
        matches!(bench, [] | [_, _]),
        "usage: cargo xtask gpu-check [MODEL INPUTS], as `sleuth bench` takes them"
    );
    let status = Command::new(cargo())
        .current_dir(root)
        .args(["test", "-p", "sleuth-cuda", "--features", "linked"])
        .status()?;
    ensure!(status.success(), "the tests of sleuth-cuda failed");
    let output = Command::new(cargo())
        .current_dir(root)
        .args(["run", "--release", "-p", "sleuth-engine", "--features", "cuda"])
        .args(["--example", "gpu_check", "--", "tests/golden/paligemma"])
        .args(bench)
        .stderr(std::process::Stdio::inherit())
        .output()?;
    let path = root.join("target/gpu-check.json");
    fs::write(&path, &output.stdout)?;
    ensure!(output.status.success(), "a GPU is not as it should be: {}", path.display());
    Ok(format!("the GPUs hold; {}", path.display()))
}

/// The toolkit's folder, installed if need be.
fn toolkit() -> Result<PathBuf> {
    let cache = cache_folder()?;
    let venv = cache.join("venv");
    if let Some(home) = installed(&venv)? {
        return Ok(home);
    }
    crate::say(&format!("installing nvcc into {}", cache.display()));
    fs::create_dir_all(&cache)?;
    run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
    let pip = venv.join("bin/pip");
    run(Command::new(pip)
        .args(["install", "--quiet", "--disable-pip-version-check"])
        .args(PACKAGES))?;
    installed(&venv)?.context("the packages hold no nvcc")
}

/// Where the packages put the toolkit, if `nvcc` is there.
fn installed(venv: &Path) -> Result<Option<PathBuf>> {
    let lib = venv.join("lib");
    if !lib.is_dir() {
        return Ok(None);
    }
    for python in fs::read_dir(lib)? {
        let home = python?.path().join("site-packages/nvidia/cu13");
        if home.join("bin/nvcc").is_file() {
            return Ok(Some(home));
        }
    }
    Ok(None)
}

/// Outside of the tree, so that a clean checkout finds it again.
fn cache_folder() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let base = base.or(home).context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("sleuth/cuda-13.0"))
}

fn with_nvcc(home: &Path) -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(home.join("bin")).chain(std::env::split_paths(&path));
    Ok(std::env::join_paths(paths)?)
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    ensure!(status.success(), "{command:?} failed");
    Ok(())
}
