"""Base images made of Debian's packages, where no registry of images can be reached.

`cpu` has what distroless/cc has. `rust` is a small Debian with a stand-in for cargo, `cuda-devel` has stand-ins for the toolkit's
libraries, and `cuda` is a Debian with a shell and setuid programs, as NVIDIA's is.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

SUITE = "trixie"
RUN_PACKAGES = ["base-files", "netbase", "tzdata", "ca-certificates", "libc6", "libgcc-s1", "gcc-14-base", "libstdc++6", "libgomp1"]
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
NONROOT = 65532
EPOCH = 1_700_000_000
# What the CUDA build of the binary is linked with, by soname, and what those are linked with themselves.
LIBRARIES = {
    "libcuda.so.1": [],
    "libcudart.so.12": [],
    "libcublasLt.so.12": [],
    "libcublas.so.12": ["libcublasLt.so.12"],
    "libcurand.so.10": [],
    "libnvrtc.so.12": [],
}
DRIVER = "libcuda.so.1"
HERE = Path(__file__).parent


class Buildah:
    """buildah with a storage of its own."""

    def __init__(self, work: Path) -> None:
        driver = os.environ.get("STORAGE_DRIVER", "overlay")
        self.command = ["buildah", "--root", str(work / "storage"), "--runroot", str(work / "runroot"), "--storage-driver", driver]

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run([*self.command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"buildah {' '.join(arguments)}\n{done.stdout[-2000:]}{done.stderr[-4000:]}")
        return done.stdout.strip()

    def base(self, name: str, tar: Path, *more: tuple[Path, str]) -> str:
        """An image of a tar's files, with further folders at further places."""
        container = self("from", "scratch")
        self("add", "--quiet", container, str(tar), "/")
        for folder, place in more:
            self("copy", "--quiet", container, str(folder), place)
        self("commit", "--quiet", container, f"localhost/{name}:1")
        self("rm", container)
        return f"localhost/{name}:1"


def run(*command: object, **options: object) -> None:
    subprocess.run([str(word) for word in command], check=True, **options)


def runtime_root(work: Path, mirror: str) -> Path:
    """The files of distroless/cc, as a tar: packages unpacked and not installed, no shell, a user."""
    root, packages = work / "cc", work / "packages"
    for folder in (root, packages, work / "apt/lists/partial", work / "apt/cache/archives/partial"):
        folder.mkdir(parents=True)
    (work / "apt/sources").write_text(f"deb [signed-by={KEYRING}] {mirror} {SUITE} main\n")
    (work / "apt/conf").write_text(
        f'Dir::Etc::sourcelist "{work}/apt/sources";\nDir::Etc::sourceparts "-";\nDir::State::lists "{work}/apt/lists";\n'
        f'Dir::Cache "{work}/apt/cache";\nAPT::Sandbox::User "root";\n'
    )
    apt = os.environ | {"APT_CONFIG": f"{work}/apt/conf"}
    run("apt-get", "update", "-qq", env=apt)
    run("apt-get", "download", "-qq", *RUN_PACKAGES, env=apt, cwd=packages)
    for package in sorted(packages.glob("*.deb")):
        files = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        run("tar", "-x", "--keep-directory-symlink", "-C", root, stdin=files.stdout)
        files.wait()
    authorities = sorted((root / "usr/share/ca-certificates/mozilla").glob("*.crt"))
    (root / "etc/ssl/certs").mkdir(parents=True, exist_ok=True)
    (root / "etc/ssl/certs/ca-certificates.crt").write_text("".join(path.read_text() for path in authorities))
    (root / "etc/passwd").write_text(
        f"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:{NONROOT}:{NONROOT}:nonroot:/home/nonroot:/sbin/nologin\n"
    )
    (root / "etc/group").write_text(f"root:x:0:\nnonroot:x:{NONROOT}:\n")
    tar = work / "cc.tar"
    run("tar", "-C", root, "-cf", tar, ".")
    return tar


def build_root(work: Path, mirror: str) -> Path:
    tar = work / "debian.tar"
    keep = ["--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*"]
    sandbox = '--aptopt=APT::Sandbox::User "root"'
    run("mmdebstrap", "--quiet", "--variant=essential", "--include=binutils,python3", sandbox, *keep, SUITE, tar, mirror)
    return tar


def toolkit(work: Path) -> Path:
    """A folder of libraries with CUDA's names, and beside it a program that is linked with all of them."""
    folder = work / "toolkit"
    folder.mkdir()
    for soname, needs in LIBRARIES.items():
        symbol = soname.split(".")[0]
        source = f"int {symbol}(void) {{ return {len(soname)}; }}\n"
        run("cc", "-shared", "-fPIC", "-x", "c", "-", "-x", "none", "-Wl,--no-as-needed", f"-Wl,-soname,{soname}", "-o",
            folder / soname, *(folder / need for need in needs), input=source, text=True)
    names = [soname.split(".")[0] for soname in LIBRARIES]
    calls = " + ".join(f"{name}()" for name in names)
    source = "#include <stdio.h>\n" + "".join(f"int {name}(void);\n" for name in names)
    source += f'int main(void) {{ printf("%d\\n", {calls}); return 0; }}\n'
    run("cc", "-x", "c", "-", "-x", "none", "-o", work / "sleuth-cuda", *(folder / soname for soname in LIBRARIES),
        f"-Wl,-rpath-link,{folder}", input=source, text=True)
    # No toolkit has the driver: the runtime mounts that of the machine.
    (folder / DRIVER).rename(work / DRIVER)
    return folder


def has_cuda() -> bool:
    """Whether the package has the feature that the CUDA variant is built with."""
    told = subprocess.check_output(["cargo", "metadata", "--locked", "--no-deps", "--format-version", "1"], text=True)
    return any("cuda" in package["features"] for package in json.loads(told)["packages"] if package["name"] == "sleuth-cli")


def recorded(work: Path, binary: Path, python: str) -> Path:
    """What the stand-in for cargo gives: the binaries, and cargo's own answers to sbom.py."""
    folder = work / "stand-in"
    folder.mkdir()
    stand_ins = work / "recorder"
    stand_ins.mkdir()
    (stand_ins / "cargo").symlink_to(HERE / "stand_in_cargo")
    cargo = subprocess.check_output(["which", "cargo"], text=True).strip()
    environment = os.environ | {"PATH": f"{stand_ins}:{os.environ['PATH']}", "STAND_IN_CARGO": cargo, "STAND_IN_ANSWERS": str(folder)}
    environment |= {"SOURCE_DATE_EPOCH": str(EPOCH)}
    with open(work / "sbom.json", "w") as out:
        run(python, "-B", HERE / "sbom.py", env=environment, stdout=out)
    if not has_cuda():
        environment |= {"STAND_IN_WITHOUT_CUDA": "1"}
    run(python, "-B", HERE / "sbom.py", "--features", "cuda", env=environment, stdout=subprocess.DEVNULL)
    run("cp", binary, folder / "sleuth")
    run("cp", work / "sleuth-cuda", folder / "sleuth-cuda")
    return folder


def make(work: Path, binary: Path, python: str, buildah: Buildah) -> dict[str, str]:
    """The Dockerfile's arguments that name bases."""
    mirror = os.environ["DEBIAN_MIRROR"]
    cc, debian, libraries = runtime_root(work, mirror), build_root(work, mirror), toolkit(work)
    stand_in = recorded(work, binary, python)
    tools = work / "tools"
    (tools / "bin").mkdir(parents=True)
    run("cp", HERE / "stand_in_cargo", tools / "bin/cargo")
    said = subprocess.check_output(["rustc", "--version", "--verbose"], text=True)
    (tools / "bin/rustc").write_text(f"#!/bin/sh\ncat <<'END'\n{said}END\n")
    (tools / "bin/rustc").chmod(0o755)
    empty = work / "rustup"
    empty.mkdir()
    parts = ((tools, "/usr/local/cargo"), (empty, "/usr/local/rustup"), (stand_in, "/stand-in"))
    rust = buildah.base("rust", debian, *parts)
    container = buildah("from", "--pull-never", rust)
    buildah("config", "--env", "PATH=/usr/local/cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", container)
    buildah("commit", "--quiet", container, rust)
    buildah("rm", container)
    return {
        "RUST_IMAGE": rust,
        "CPU_BASE_IMAGE": buildah.base("cpu", cc),
        "CUDA_BUILD_IMAGE": buildah.base("cuda-devel", debian, (libraries, "/usr/local/cuda/lib64"), (stand_in, "/stand-in")),
        "CUDA_BASE_IMAGE": buildah.base("cuda", debian),
    }
