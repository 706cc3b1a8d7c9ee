"""Rendered manifests: what of them is played."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import tomllib
from pathlib import Path

import yaml


class Manifests:
    """Objects by kind and name, of one namespace."""

    def __init__(self, folder: Path) -> None:
        self.kinds: dict[str, dict[str, dict]] = {}
        for path in sorted(folder.rglob("*.yaml")):
            for document in yaml.safe_load_all(path.read_text()):
                if isinstance(document, dict) and "kind" in document and "metadata" in document:
                    self.kinds.setdefault(document["kind"], {})[document["metadata"]["name"]] = document
        deployments = self.all("Deployment")
        if not deployments:
            raise SystemExit(f"{folder}: no Deployment in its *.yaml")
        self.namespace = deployments[0]["metadata"].get("namespace", "default")

    def all(self, kind: str) -> list[dict]:
        return list(self.kinds.get(kind, {}).values())

    def one(self, kind: str, name: str) -> dict:
        try:
            return self.kinds[kind][name]
        except KeyError:
            raise SystemExit(f"the manifests have no {kind} {name}") from None

    def copy(self) -> Manifests:
        return copy.deepcopy(self)

    def routers(self) -> str:
        """The Deployment that runs `sleuth route`."""
        return next(d["metadata"]["name"] for d in self.all("Deployment") if container(d)["args"][0] == "route")

    def replicas(self) -> list[str]:
        """The Deployments that run `sleuth serve`."""
        return [d["metadata"]["name"] for d in self.all("Deployment") if container(d)["args"][0] == "serve"]

    def settings(self, deployment: str) -> dict:
        """The settings file of a Deployment, read."""
        return tomllib.loads(self.one("ConfigMap", self.config_map(deployment))["data"]["sleuth.toml"])

    def config_map(self, deployment: str) -> str:
        volumes = self.one("Deployment", deployment)["spec"]["template"]["spec"].get("volumes", [])
        names = [volume["configMap"]["name"] for volume in volumes if "configMap" in volume]
        if len(names) != 1:
            raise SystemExit(f"Deployment {deployment} has {len(names)} ConfigMaps as volumes; one is played")
        return names[0]

    def set(self, deployment: str, section: str, key: str, value: object) -> None:
        """Changes a setting as a new rendering would: the file and, by its checksum, the pods."""
        settings = self.settings(deployment)
        settings.setdefault(section, {})[key] = value
        text = printed(settings)
        self.one("ConfigMap", self.config_map(deployment))["data"]["sleuth.toml"] = text
        template = self.one("Deployment", deployment)["spec"]["template"]
        template["metadata"].setdefault("annotations", {})["checksum/config"] = hashlib.sha256(text.encode()).hexdigest()

    def may(self, account: str, verb: str, resource: str) -> bool:
        """Whether the Roles let a service account do that."""
        for binding in self.all("RoleBinding"):
            if any(s["kind"] == "ServiceAccount" and s["name"] == account for s in binding["subjects"]):
                rules = self.one("Role", binding["roleRef"]["name"])["rules"]
                if any(resource in rule["resources"] and verb in rule["verbs"] and "discovery.k8s.io" in rule["apiGroups"] for rule in rules):
                    return True
        return False


def container(deployment: dict) -> dict:
    return deployment["spec"]["template"]["spec"]["containers"][0]


def printed(settings: dict) -> str:
    """TOML of sections with plain values; JSON's strings, numbers, booleans and lists of these are TOML's."""
    lines = []
    for section, keys in settings.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in keys.items()]
    return "\n".join(lines) + "\n"


def template_hash(deployment: dict) -> str:
    text = json.dumps(deployment["spec"]["template"], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def share(value: int | str, of: int, up: bool) -> int:
    """A number or a percentage; surges are rounded up, what may be missing is rounded down."""
    if isinstance(value, int):
        return value
    exact = of * int(value.removesuffix("%")) / 100
    return math.ceil(exact) if up else math.floor(exact)


def selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()
