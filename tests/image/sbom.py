"""Prints a CycloneDX 1.6 bill of materials of the crates that are linked into `sleuth`.

    python3 tests/image/sbom.py [--features cuda] [--target aarch64-unknown-linux-gnu]

`cargo tree` says what a build of that package, those features and that target links: normal dependencies, without procedural macros,
build scripts' and tests' dependencies. `cargo metadata` says the licences, Cargo.lock the checksums. The same inputs give the same
bytes; the time is SOURCE_DATE_EPOCH, or 0.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from datetime import UTC, datetime
from pathlib import Path

PACKAGE = "sleuth-cli"
BINARY = "sleuth"
LINE = re.compile(r"(?P<depth>\d+)(?P<name>\S+) v(?P<version>\S+)")

Crate = tuple[str, str]


def cargo(*arguments: str) -> str:
    return subprocess.run(["cargo", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def compiler() -> dict[str, str]:
    """What rustc says of itself, such as its release and host."""
    said = subprocess.check_output(["rustc", "--version", "--verbose"], text=True).splitlines()
    return dict(line.split(": ", 1) for line in said[1:])


def linked(features: str, target: str) -> dict[Crate, set[Crate]]:
    """Every crate that is linked, with those that it needs itself; the package comes first."""
    edges = ["--edges", "normal,no-proc-macro", "--prefix", "depth", "--format", "{p}"]
    tree = cargo("tree", "--locked", "--package", PACKAGE, "--features", features, "--target", target, *edges)
    needs: dict[Crate, set[Crate]] = {}
    path: list[Crate] = []
    for line in filter(None, tree.splitlines()):
        found = LINE.match(line)
        if not found:
            raise SystemExit(f"cargo tree printed a line that is not understood: {line!r}")
        crate = found["name"], found["version"]
        needs.setdefault(crate, set())
        path[int(found["depth"]) :] = [crate]
        if len(path) > 1:
            needs[path[-2]].add(crate)
    return needs


def checksums() -> dict[Crate, str]:
    packages = tomllib.loads(Path("Cargo.lock").read_text())["package"]
    return {(p["name"], p["version"]): p["checksum"] for p in packages if "checksum" in p}


def reference(crate: Crate) -> str:
    return f"pkg:cargo/{crate[0]}@{crate[1].replace('+', '%2B')}"


def component(crate: Crate, package: dict, checksum: str | None) -> dict:
    told = {"type": "library", "bom-ref": reference(crate), "name": crate[0], "version": crate[1], "purl": reference(crate)}
    if package.get("license"):
        # Old crates write MIT/Apache-2.0 for what SPDX writes with OR.
        told["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if checksum:
        told["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package.get("repository"):
        told["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return told


def bill(features: str, target: str) -> dict:
    needs = linked(features, target)
    metadata = json.loads(cargo("metadata", "--locked", "--format-version", "1", "--features", f"{PACKAGE}/{features}" if features else ""))
    packages = {(p["name"], p["version"]): p for p in metadata["packages"]}
    hashes = checksums()
    known = {crate: component(crate, packages[crate], hashes.get(crate)) for crate in needs}
    root = next(iter(needs))
    program = known.pop(root) | {"type": "application", "name": BINARY}
    facts = {"sleuth:features": features, "sleuth:target": target, "sleuth:rustc": compiler()["release"]}
    time = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH", "0")), UTC)
    body = {
        "metadata": {
            "timestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "component": program,
            "properties": [{"name": name, "value": value} for name, value in facts.items()],
        },
        "components": [known[crate] for crate in sorted(known)],
        "dependencies": [{"ref": reference(crate), "dependsOn": sorted(map(reference, needs[crate]))} for crate in sorted(needs)],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(body, sort_keys=True))
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "serialNumber": f"urn:uuid:{serial}", "version": 1, **body}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", default="", help="of the package, with commas between")
    parser.add_argument("--target", help="a triple, if not the compiler's own")
    arguments = parser.parse_args()
    json.dump(bill(arguments.features, arguments.target or compiler()["host"]), sys.stdout, indent=1, ensure_ascii=False)
    print()


if __name__ == "__main__":
    main()
