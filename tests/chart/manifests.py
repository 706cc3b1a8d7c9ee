"""k8s/base/*/sleuth.yaml from the chart and the values beside: `manifests.py [--check]`."""

import sys

import yaml

from rendering import ROOT, render

BASE = ROOT / "k8s" / "base"
NAMESPACE = "sleuth"
HEADER = "# From the chart and values.yaml beside this file, by `tests/chart/render`; not edited by hand.\n"
# True of a release of Helm's alone.
HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")


def profiles():
    return sorted(path.parent.name for path in BASE.glob("*/values.yaml"))


def rendered(profile):
    values = yaml.safe_load((BASE / profile / "values.yaml").read_text())
    objects = render(values, release="sleuth", namespace=NAMESPACE).objects
    for o in objects:
        for label in HELM_LABELS:
            o["metadata"]["labels"].pop(label, None)
    order = ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "Service", "Deployment"]
    rank = {kind: place for place, kind in enumerate(order)}
    objects.sort(key=lambda o: (rank.get(o["kind"], len(order)), o["kind"], o["metadata"]["name"]))
    return HEADER + "---\n".join(text(o) for o in objects)


class Dumper(yaml.SafeDumper):
    pass


def lines(dumper, value):
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


Dumper.add_representer(str, lines)


def text(o):
    return yaml.dump(o, Dumper=Dumper, sort_keys=False, width=200)


def main(check):
    stale = []
    for profile in profiles():
        path = BASE / profile / "sleuth.yaml"
        now = rendered(profile)
        if not path.exists() or path.read_text() != now:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(now)
    for path in stale:
        print(f"{path} {'differs from the chart: run tests/chart/render' if check else 'is written'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
