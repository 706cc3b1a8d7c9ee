"""The chart through Helm's own engine: values in, Kubernetes objects out."""

from dataclasses import dataclass
from pathlib import Path

import helm_python
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "sleuth"


class Refused(Exception):
    """Helm did not render; the text is what a user reads."""


class StrictLoader(yaml.SafeLoader):
    """Refuses a key that stands twice in a map, where PyYAML takes the last."""

    def construct_mapping(self, node, deep=False):
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} stands twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


@dataclass(frozen=True)
class Rendering:
    release: str
    namespace: str
    values: dict
    objects: list
    notes: str

    def of(self, kind):
        return [o for o in self.objects if o["kind"] == kind]

    def one(self, kind, name):
        found = [o for o in self.of(kind) if o["metadata"]["name"] == name]
        assert len(found) == 1, f"{kind} {name}: {len(found)} of {[o['metadata']['name'] for o in self.of(kind)]}"
        return found[0]


def documents(text):
    return [document for document in yaml.load_all(text, Loader=StrictLoader) if document is not None]


def render(values=None, release="sleuth", namespace="rewards", chart=CHART):
    values = values or {}
    objects, notes = [], ""
    try:
        with helm_python.Chart.load(chart) as loaded:
            manifests = loaded.render(values, name=release, namespace=namespace)
    except helm_python.HelmError as error:
        raise Refused(str(error)) from error
    for path, text in sorted(manifests.items()):
        if path.endswith("NOTES.txt"):
            notes = text
        else:
            objects.extend(documents(text))
    return Rendering(release, namespace, values, objects, notes)


def lint(values=None, namespace="rewards", kube_version=None):
    """Helm's findings above mere information, lint's `--strict`."""
    report = helm_python.lint(CHART, values or {}, strict=True, namespace=namespace, kube_version=kube_version)
    return report["errors"] + [m["error"] for m in report["messages"] if m["severity"] > 1]
