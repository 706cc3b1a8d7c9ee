"""What must hold of the Dockerfile as it is written."""

from __future__ import annotations

import io
import json
import re
import shlex
import tomllib
from pathlib import Path

from dockerfile_parse import DockerfileParser

LABELS = {f"org.opencontainers.image.{name}" for name in ("title", "description", "licenses", "version", "revision")}
SECRET = re.compile(r"secret|passw|token|credential|api_?key", re.IGNORECASE)
VARIANTS = ("cpu", "cuda")


class Stage:
    """The instructions from one FROM to the next."""

    def __init__(self, source: str) -> None:
        words = source.split()
        self.base = words[0]
        self.name = words[2] if len(words) == 3 else ""
        self.steps: list[tuple[str, str]] = []

    def last(self, instruction: str) -> str:
        return next((value for name, value in reversed(self.steps) if name == instruction), "")


def is_exec(value: str) -> bool:
    try:
        words = json.loads(value)
    except json.JSONDecodeError:
        return False
    return isinstance(words, list) and all(isinstance(word, str) for word in words)


def read(text: str) -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first FROM, and the stages."""
    arguments: dict[str, str] = {}
    stages: list[Stage] = []
    for step in DockerfileParser(fileobj=io.BytesIO(text.encode())).structure:
        name, value = step["instruction"], step["value"]
        if name == "FROM":
            stages.append(Stage(value))
        elif name == "ARG" and not stages:
            key, _, default = value.partition("=")
            arguments[key] = default
        elif name != "COMMENT":
            stages[-1].steps.append((name, value))
    return arguments, stages


def bases(arguments: dict[str, str], stages: list[Stage]) -> list[str]:
    faults = []
    names: set[str] = set()
    for stage in stages:
        argument = re.fullmatch(r"\$\{(\w+)\}", stage.base)
        if argument and not re.search(r"[/\w]:[\w.-]+$", arguments.get(argument[1], "")):
            faults.append(f"{argument[1]} has no default with a tag")
        elif not argument and stage.base not in names:
            faults.append(f"FROM {stage.base} is neither an argument nor a stage")
        names.add(stage.name)
    faults += [f"{key} is the latest of something" for key, value in arguments.items() if value.endswith(":latest")]
    return faults


def versions(arguments: dict[str, str]) -> list[str]:
    """What the Dockerfile repeats of other files and of itself."""
    faults = []
    channel = tomllib.loads(Path("rust-toolchain.toml").read_text())["toolchain"]["channel"]
    if arguments["RUST_VERSION"] != channel or f":{channel}-" not in arguments["RUST_IMAGE"]:
        faults.append(f"rust-toolchain.toml names {channel}")
    build, base = arguments["CUDA_BUILD_IMAGE"], arguments["CUDA_BASE_IMAGE"]
    if build.replace("-devel-", "-base-") != base:
        faults.append("the CUDA variant is built on another toolkit or system than it runs on")
    return faults


def variant(stage: Stage, version: str) -> list[str]:
    """What holds of a stage that is delivered."""
    faults = []
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", stage.last("USER")):
        faults.append(f"USER {stage.last('USER')} is no number, or root")
    for instruction in ("ENTRYPOINT", "CMD"):
        if not is_exec(stage.last(instruction)):
            faults.append(f"{instruction} is not in exec form")
    health = re.search(r"CMD\s+(.*)", stage.last("HEALTHCHECK"))
    if not health or not is_exec(health[1]):
        faults.append("HEALTHCHECK is missing or not in exec form")
    if stage.last("EXPOSE").split() != ["50051", "50052"]:
        faults.append("EXPOSE is not 50051 and 50052")
    labels = {word.partition("=")[0] for word in shlex.split(stage.last("LABEL"))}
    if labels != LABELS:
        faults.append(f"labels differ: {sorted(labels ^ LABELS)}")
    if ("ARG", f"VERSION={version}") not in stage.steps:
        faults.append(f"the version is not the workspace's, {version}")
    return faults


def steps(stages: list[Stage]) -> list[str]:
    faults = []
    for name, value in (step for stage in stages for step in stage.steps):
        if name == "ADD":
            faults.append("ADD, which may fetch")
        if name in ("ARG", "ENV") and SECRET.search(value):
            faults.append(f"{name} {value} looks like a secret, and layers keep it")
        if name == "RUN":
            if re.search(r"\b(curl|wget)\b", value):
                faults.append("RUN fetches something that no lock file pins")
            if re.search(r"cargo build", value) and "--locked" not in value:
                faults.append("cargo without --locked")
            if re.search(r"cargo build", value) and "type=cache" not in value:
                faults.append("cargo without a cache mount")
    return faults


def faults(text: str) -> list[str]:
    arguments, stages = read(text)
    version = tomllib.loads(Path("Cargo.toml").read_text())["workspace"]["package"]["version"]
    found = bases(arguments, stages) + versions(arguments) + steps(stages)
    named = {stage.name: stage for stage in stages}
    for name in VARIANTS:
        found += variant(named[name], version) if name in named else [f"there is no stage {name}"]
    if stages[-1].base != "cpu":
        found.append("without --target another variant than cpu is built")
    return found


# Each makes the Dockerfile bad in one way; the text is what must be found.
SPOILED = [
    (r"FROM \$\{CPU_BASE_IMAGE\} AS cpu", "FROM debian:13 AS cpu", "neither an argument nor a stage"),
    (r"(ARG CPU_BASE_IMAGE=\S+):nonroot", r"\1:latest", "the latest"),
    (r"(ARG CPU_BASE_IMAGE=\S+):nonroot", r"\1", "no default with a tag"),
    (r"USER 65532:65532", "USER nonroot", "no number"),
    (r"USER 65532:65532", "USER 0:0", "root"),
    (r"CMD \[\"/opt/sleuth/bin/sleuth\", \"probe\", (\"\S+\")\]", r"CMD sleuth probe \1", "HEALTHCHECK"),
    (r'ENTRYPOINT \["/opt/sleuth/bin/sleuth"\]', "ENTRYPOINT sleuth", "ENTRYPOINT"),
    (r"COPY \. \.", "ADD https://example.org/a.tar /", "ADD"),
    (r"RUN strip ", "RUN curl https://example.org | sh && strip ", "fetches"),
    (r" --locked", "", "--locked"),
    (r"ARG REVISION=unknown", "ARG REVISION=unknown\nARG API_KEY=1", "secret"),
    (r"rust:1\.[0-9.]+-", "rust:1.0.0-", "rust-toolchain.toml"),
    (r"(CUDA_BASE_IMAGE=\S+cuda:)[0-9.]+", r"\g<1>1.0.0", "another toolkit"),
    (r"ARG VERSION=\S+", "ARG VERSION=9.9.9", "the workspace's"),
    (r"FROM cpu\n", "FROM cuda\n", "--target"),
]


def check(report) -> None:
    report.part("the Dockerfile as it is written")
    text = Path("Dockerfile").read_text()
    report.check("pinned bases, numeric user, exec forms, labels, nothing fetched, no secret", not faults(text), faults(text))
    for pattern, replacement, expected in SPOILED:
        spoiled, times = re.subn(pattern, replacement, text)
        found = faults(spoiled)
        report.check(f"a spoiled one is found out: {expected}", times and any(expected in fault for fault in found), (times, found))
