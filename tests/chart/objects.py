"""Reading rendered objects: pods, containers, labels, settings."""

import tomllib
from dataclasses import dataclass

WORKLOADS = {"Deployment"}


@dataclass(frozen=True)
class Workload:
    """A Deployment, or the test's Pod, as what it makes pods of."""

    owner: dict
    labels: dict
    annotations: dict
    spec: dict

    @property
    def name(self):
        return self.owner["metadata"]["name"]

    @property
    def component(self):
        return self.labels.get("app.kubernetes.io/component")

    @property
    def long_lived(self):
        return self.owner["kind"] == "Deployment"

    @property
    def containers(self):
        return self.spec["containers"]

    @property
    def all_containers(self):
        return self.spec.get("initContainers", []) + self.spec["containers"]


def workloads(objects):
    found = []
    for o in objects:
        if o["kind"] in WORKLOADS:
            template = o["spec"]["template"]
            found.append(Workload(o, template["metadata"]["labels"], template["metadata"].get("annotations", {}), template["spec"]))
        elif o["kind"] == "Pod":
            found.append(Workload(o, o["metadata"]["labels"], o["metadata"].get("annotations", {}), o["spec"]))
    return found


def deployments(objects):
    return [w for w in workloads(objects) if w.long_lived]


def named(objects, kind):
    return {o["metadata"]["name"]: o for o in objects if o["kind"] == kind}


def selects(selector, labels):
    """Whether a map of labels picks these labels."""
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def selectors(objects):
    """Every map of labels by which an object picks pods, with the object's kind: peers of policies and
    spread constraints too."""

    def walk(value):
        if isinstance(value, dict):
            if "matchLabels" in value:
                yield value["matchLabels"]
            for inner in value.values():
                yield from walk(inner)
        if isinstance(value, list):
            for inner in value:
                yield from walk(inner)

    for o in objects:
        if o["kind"] == "Service":
            yield o["kind"], o["spec"]["selector"]
        for found in walk(o.get("spec", {})):
            yield o["kind"], found


def settings(objects, workload):
    """The TOML that the workload's container is started with."""
    path = workload.containers[0]["args"][workload.containers[0]["args"].index("--config") + 1]
    for mount in workload.containers[0]["volumeMounts"]:
        folder, _, file = path.rpartition("/")
        if mount["mountPath"] == folder:
            volume = next(v for v in workload.spec["volumes"] if v["name"] == mount["name"])
            return tomllib.loads(named(objects, "ConfigMap")[volume["configMap"]["name"]]["data"][file])
    raise LookupError(f"{workload.name}: nothing is mounted at {path}")


def port_of(address):
    return int(address.rpartition(":")[2])


def http_port(told):
    """The port of `http.listen`, or None where settings have none."""
    address = told.get("http", {}).get("listen")
    return port_of(address) if address else None
