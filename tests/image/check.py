"""Builds both variants on local bases and checks them; `run` starts it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import bases
import built
import running
import source
from report import Report

EPOCH = bases.EPOCH
REVISION = "0123456789abcdef"
TEST_SOURCES = re.compile(r"(^|/)(tests|benches|examples)(/|\.rs$)|_test\.rs$")
INCLUDED = re.compile(r'include_(?:str|bytes)!\(\s*"([^"]+)"')


def build(buildah: bases.Buildah, arguments: dict[str, str], target: str, tag: str) -> str:
    told = {**arguments, "REVISION": REVISION, "SOURCE_DATE_EPOCH": str(EPOCH)}
    words = [word for key, value in told.items() for word in ("--build-arg", f"{key}={value}")]
    image = f"localhost/sleuth:{tag}"
    buildah("build", "--isolation", "chroot", "--format", "docker", "--pull-never", "--no-cache", "--quiet", "--target", target, *words, "--tag", image, ".")
    return image


def mounted(buildah: bases.Buildah, image: str) -> Path:
    return Path(buildah("mount", buildah("from", "--pull-never", image)))


def check_context(report: Report, src: Path) -> None:
    """What .dockerignore lets through is enough for cargo, and little else."""
    top = {path.name for path in src.iterdir()}
    kept_out = {".git", "target", "runs", "docs", "helm", "k8s", "fuzz", "benches"} & top
    report.check("the context has no history, build folders, runs or docs", not kept_out, kept_out)
    size = sum(path.stat().st_size for path in src.rglob("*") if path.is_file())
    report.check(f"it has {size / 2**20:.0f} MiB, at most 20", size <= 20 << 20)
    done = subprocess.run(["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"], cwd=src, capture_output=True, text=True)
    report.check("cargo reads its workspace and lock file", done.returncode == 0, done.stderr)
    missing = []
    for path in (src / "crates").rglob("*.rs"):
        if TEST_SOURCES.search(str(path.relative_to(src))):
            continue
        missing += [f"{path.relative_to(src)}: {name}" for name in INCLUDED.findall(path.read_text()) if not (path.parent / name).is_file()]
    report.check("it has every file that sources include", not missing, missing)


def check_cpu(report: Report, buildah: bases.Buildah, arguments: dict[str, str], work: Path, binary: Path, version: str) -> None:
    report.part("the context")
    check_context(report, mounted(buildah, build(buildah, arguments, "sources", "sources")) / "src")
    report.part("the CPU variant")
    image = build(buildah, arguments, "cpu", "cpu")
    root = mounted(buildah, image)
    base = set(built.files(mounted(buildah, arguments["CPU_BASE_IMAGE"])))
    built.check_files(report, root, base, EPOCH)
    built.check_shell(report, root)
    built.check_configuration(report, buildah, image, version, REVISION, {})
    built.check_bill(report, root, work / "sbom.json", binary)
    again = mounted(buildah, build(buildah, arguments, "cpu", "again"))
    first, second = (built.contents(folder, built.files(folder)) for folder in (root, again))
    report.check("built again, our files have the same bytes, modes and times", first and first == second, first.items() ^ second.items())
    report.part("the CPU variant while it runs")
    configuration = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    box = running.Box(work, root, configuration)
    running.check_score(report, box)
    running.check_serve(report, box, binary)


def check_cuda(report: Report, buildah: bases.Buildah, arguments: dict[str, str], work: Path, version: str) -> None:
    report.part("the CUDA variant, of stand-ins for the toolkit and the program")
    image = build(buildah, arguments, "cuda", "cuda")
    root = mounted(buildah, image)
    raised = [path for path, s in built.files(mounted(buildah, arguments["CUDA_BASE_IMAGE"])).items() if s.st_mode & 0o6000 and not path.endswith("/")]
    report.check("the base has setuid files, as NVIDIA's", raised)
    still = [path for path, s in built.files(root).items() if s.st_mode & 0o4000]
    report.check("the image has none", not still, still)
    libraries = {path.name for path in (root / "opt/sleuth/lib").iterdir()}
    wanted = set(bases.LIBRARIES) - {bases.DRIVER}
    report.check("it has the toolkit's libraries that the program asks for, and not the driver's", libraries == wanted, libraries ^ wanted)
    links = [path for path in (root / "opt/sleuth/lib").iterdir() if path.is_symlink()]
    report.check("as files under the names asked for", not links, links)
    variables = {"LD_LIBRARY_PATH": "/opt/sleuth/lib", "NVIDIA_VISIBLE_DEVICES": "all", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    built.check_configuration(report, buildah, image, version, REVISION, variables)
    configuration = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    box = running.Box(work, root, configuration)
    driver = [running.read_only(work / bases.DRIVER, f"/usr/lib/{bases.DRIVER}")]
    done = box.run(mounts=driver)
    report.check("the program finds them, and the driver where the runtime puts it", done.returncode == 0 and done.stdout.strip().isdigit(), done)
    done = box.run()
    report.check("without a driver the loader names it", done.returncode and bases.DRIVER in done.stderr, done)


def main() -> None:
    binary, work = Path(sys.argv[1]), Path(sys.argv[2])
    version = tomllib.loads(Path("Cargo.toml").read_text())["workspace"]["package"]["version"]
    report = Report()
    source.check(report)
    report.part("local bases")
    buildah = bases.Buildah(work)
    arguments = bases.make(work, binary, sys.executable, buildah)
    check_cpu(report, buildah, arguments, work, binary, version)
    check_cuda(report, buildah, arguments, work, version)
    report.not_tried("the base images that the Dockerfile names: no registry of images is asked")
    report.not_tried("the compilation in the build stages: cargo is a stand-in there, and two builds with it say nothing of rustc's bytes")
    if not bases.has_cuda():
        report.not_tried("sleuth-cli's feature `cuda`, which is not there yet; its bill of materials is the CPU variant's here")
    report.not_tried("the CUDA build of the program, the toolkit's own libraries and a GPU")
    report.not_tried("Docker and BuildKit: buildah builds, crun runs, and no engine polls the health check")
    raise SystemExit(report.end())


if __name__ == "__main__":
    main()
