"""What must hold of an image that was built: its files and its configuration."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
from pathlib import Path

OURS = ("opt/", "usr/share/sleuth/", "usr/share/doc/sleuth/")
SHELLS = {"sh", "bash", "dash", "ash", "zsh", "busybox"}
MOST_BYTES = 110 << 20
# Of the workspace, and linked into no release: tests', build scripts' and macros' crates.
NEVER_LINKED = {"proptest", "turmoil", "rcgen", "criterion", "protox", "prost-build", "tonic-prost-build", "cc", "serde_derive", "syn"}


def files(root: Path) -> dict[str, os.stat_result]:
    """Every file and folder, by its path from the root."""
    found = {}
    for folder, folders, names in os.walk(root):
        for name in folders + names:
            path = Path(folder) / name
            found[str(path.relative_to(root))] = path.lstat()
    return found


def contents(root: Path, known: dict[str, os.stat_result]) -> dict[str, tuple[int, int, str]]:
    """Mode, time and digest of our files."""
    ours = {path: status for path, status in known.items() if path.startswith(OURS)}
    return {
        path: (status.st_mode, int(status.st_mtime), hashlib.sha256((root / path).read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else "")
        for path, status in ours.items()
    }


def check_files(report, root: Path, base: set[str], epoch: int) -> None:
    known = files(root)
    regular = {path: status for path, status in known.items() if stat.S_ISREG(status.st_mode)}
    size = sum(status.st_size for status in regular.values())
    report.check(f"{size / 2**20:.0f} MiB, at most {MOST_BYTES >> 20}", size <= MOST_BYTES)
    raised = [path for path, status in regular.items() if status.st_mode & 0o6000]
    report.check("no setuid or setgid file", not raised, raised)
    open_to_all = [p for p, s in known.items() if s.st_mode & 0o002 and not stat.S_ISLNK(s.st_mode) and not s.st_mode & stat.S_ISVTX]
    report.check("nothing that all may write", not open_to_all, open_to_all)
    added = {path for path in regular if path not in base}
    strange = sorted(path for path in added if not path.startswith(OURS))
    report.check(f"{len(added)} files beside the base's, all in their places", added and not strange, strange)
    ours = {path: status for path, status in known.items() if path.startswith(OURS)}
    foreign = [path for path, s in ours.items() if (s.st_uid, s.st_gid) != (0, 0)]
    report.check("our files are root's, so that the program cannot change them", not foreign, foreign)
    program = "opt/sleuth/bin/sleuth"
    wanted = {path: 0o755 if path == program or stat.S_ISDIR(s.st_mode) else 0o644 for path, s in ours.items()}
    modes = [(path, oct(s.st_mode & 0o7777)) for path, s in ours.items() if s.st_mode & 0o7777 != wanted[path]]
    report.check("modes are 755 of folders and the program, 644 of the rest", not modes, modes)
    times = [path for path, s in ours.items() if int(s.st_mtime) != epoch]
    report.check("times are SOURCE_DATE_EPOCH", not times, times)
    source = {str(p.relative_to("models/mini")): p.read_bytes() for p in Path("models/mini").rglob("*") if p.is_file()}
    inside = root / "opt/sleuth/models/mini"
    copied = {str(p.relative_to(inside)): p.read_bytes() for p in inside.rglob("*") if p.is_file()}
    report.check("the trained model is whole", copied == source, sorted(copied.keys() ^ source.keys()))
    sections = subprocess.check_output(["readelf", "--wide", "--sections", root / program], text=True)
    report.check("the program has names of functions and no debug information", ".symtab" in sections and ".debug_info" not in sections)


def check_shell(report, root: Path) -> None:
    found = [path for path, s in files(root).items() if path.rpartition("/")[2] in SHELLS and not stat.S_ISDIR(s.st_mode)]
    report.check("no shell", not found, found)


def check_configuration(report, buildah, image: str, version: str, revision: str, more: dict[str, str]) -> None:
    told = json.loads(buildah("inspect", "--type", "image", image))["Docker"]["config"]
    report.check("user 65532", told["User"] == "65532:65532", told["User"])
    report.check("entrypoint and command", (told["Entrypoint"], told["Cmd"]) == (["/opt/sleuth/bin/sleuth"], ["serve"]), told)
    probe = ["CMD", "/opt/sleuth/bin/sleuth", "probe", "http://127.0.0.1:50052/readyz"]
    report.check("health check by the program itself", told.get("Healthcheck", {}).get("Test") == probe, told.get("Healthcheck"))
    report.check("ports", sorted(told["ExposedPorts"]) == ["50051/tcp", "50052/tcp"], told["ExposedPorts"])
    report.check("stop signal", told.get("StopSignal") == "SIGTERM", told.get("StopSignal"))
    labels = {key.rpartition(".")[2]: value for key, value in told["Labels"].items() if key.startswith("org.opencontainers.image.")}
    told_labels = (labels.get("version"), labels.get("revision"), labels.get("licenses"), labels.get("title"))
    report.check("labels", told_labels == (version, revision, "Apache-2.0 OR MIT", "sleuth"), labels)
    variables = dict(entry.split("=", 1) for entry in told["Env"])
    report.check("no variable is a setting of ours, which would win over a settings file", not any(key.startswith("SLEUTH_") for key in variables), variables)
    report.check("the program is in PATH", variables["PATH"].startswith("/opt/sleuth/bin:"), variables["PATH"])
    report.check("variables of this variant", more.items() <= variables.items(), variables)


def check_bill(report, root: Path, recorded: Path, binary: Path) -> None:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    text = (root / "usr/share/sleuth/sbom.cdx.json").read_text()
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    fault = validator.validate_str(text)
    report.check("the bill of materials is CycloneDX 1.6", fault is None, fault)
    fault = validator.validate_str(text.replace('"type": "library"', '"type": "librarian"', 1))
    report.check("a spoiled one is not", fault is not None)
    report.check("it is what sbom.py prints of cargo's own answers", text == recorded.read_text())
    bill = json.loads(text)
    listed = {(c["name"], c["version"]) for c in bill["components"]}
    never = sorted(name for name, _ in listed if name in NEVER_LINKED)
    report.check(f"{len(listed)} crates, none of tests, build scripts or macros", listed and not never, never)
    bare = [c["name"] for c in bill["components"] if "licenses" not in c or ("hashes" not in c and not c["name"].startswith("sleuth-"))]
    report.check("each with licence and checksum", not bare, bare)
    references = {bill["metadata"]["component"]["bom-ref"]} | {c["bom-ref"] for c in bill["components"]}
    named = {ref for d in bill["dependencies"] for ref in [d["ref"], *d["dependsOn"]]}
    report.check("dependencies name what is listed", named == references, sorted(named ^ references))
    # Panics and debug information name the sources that the machine's code came from.
    paths = re.findall(rb"/registry/src/[^/\x00]+/([A-Za-z0-9_-]+?)-(\d+\.\d+\.\d+[A-Za-z0-9.+-]*)/", binary.read_bytes())
    seen = {(name.decode(), number.decode()) for name, number in paths}
    unlisted = sorted(seen - listed)
    report.check(f"all {len(seen)} crates that the program's own paths name are listed", seen and not unlisted, unlisted)
