"""Names, selectors and references of rendered objects."""

import re

from objects import deployments, named, selects, workloads

# Kinds whose name is no label: the API allows 253 characters.
LONG_NAMES = {"PriorityClass"}


def external(values):
    """What the values say of what lies outside of the release: names by kind, and who may reach it."""
    found = {"Secret": set(), "ConfigMap": set(), "PersistentVolumeClaim": set(), "ServiceAccount": set()}

    def walk(value):
        if isinstance(value, list):
            for item in value:
                walk(item)
        if not isinstance(value, dict):
            return
        for key, inner in value.items():
            if key == "secretName" and isinstance(inner, str):
                found["Secret"].add(inner)
            elif key in ("secretRef", "secretKeyRef"):
                found["Secret"].add(inner["name"])
            elif key == "configMap" and isinstance(inner, dict) and "name" in inner:
                found["ConfigMap"].add(inner["name"])
            elif key == "claim":
                found["PersistentVolumeClaim"].add(inner.get("name"))
            elif key == "serviceAccount" and not inner.get("create", True):
                found["ServiceAccount"].add(inner.get("name"))
            elif key == "imagePullSecrets":
                found["Secret"].update(s["name"] for s in inner)
            walk(inner)

    walk(values)
    policy = values.get("networkPolicy", {})
    found["no network policies"] = not policy.get("enabled", True)
    found["callers chosen"] = "callers" in policy or "extraIngress" in policy
    if "prometheus" in policy:
        found["monitored from"] = [p["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] for p in policy["prometheus"]]
    return found


def exists(objects, external, kind, name):
    made = {c["spec"]["secretName"] for c in named(objects, "Certificate").values()} if kind == "Secret" else set()
    return name in named(objects, kind) or name in external.get(kind, ()) or name in made


def references_exist(objects, external):
    for w in workloads(objects):
        wanted = [("Secret", s["name"]) for s in w.spec.get("imagePullSecrets", [])]
        wanted += [("ServiceAccount", w.spec[k]) for k in ["serviceAccountName"] if k in w.spec]
        for volume in w.spec.get("volumes", []):
            if "configMap" in volume:
                wanted.append(("ConfigMap", volume["configMap"]["name"]))
            if "secret" in volume:
                wanted.append(("Secret", volume["secret"]["secretName"]))
            if "persistentVolumeClaim" in volume:
                wanted.append(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        for container in w.all_containers:
            for source in container.get("envFrom", []):
                wanted += [("Secret", source[k]["name"]) for k in ["secretRef"] if k in source]
            for variable in container.get("env", []):
                wanted += [("Secret", v["name"]) for k, v in variable.get("valueFrom", {}).items() if k == "secretKeyRef"]
        for kind, name in wanted:
            if not exists(objects, external, kind, name):
                yield f"{w.name}: {kind} {name} is neither rendered nor said to exist"
    for binding in named(objects, "RoleBinding").values():
        if binding["roleRef"]["name"] not in named(objects, binding["roleRef"]["kind"]):
            yield f"RoleBinding {binding['metadata']['name']}: there is no such role"
        for subject in binding["subjects"]:
            if not exists(objects, external, subject["kind"], subject["name"]):
                yield f"RoleBinding {binding['metadata']['name']}: there is no {subject['name']}"


def config_keys_exist(objects, _external):
    """A file that an item of a volume picks is in the ConfigMap."""
    for w in deployments(objects):
        volume = next((v for v in w.spec["volumes"] if v["name"] == "config"), None)
        data = named(objects, "ConfigMap").get(volume["configMap"]["name"], {}).get("data", {}) if volume else {}
        if "sleuth.toml" not in data:
            yield f"{w.name}: its ConfigMap has no sleuth.toml"


def mounts_have_volumes(objects, _external):
    for w in workloads(objects):
        volumes = [v["name"] for v in w.spec.get("volumes", [])]
        if len(set(volumes)) != len(volumes):
            yield f"{w.name}: a volume's name stands twice"
        mounted = set()
        for container in w.all_containers:
            paths = [m["mountPath"] for m in container.get("volumeMounts", [])]
            if len(set(paths)) != len(paths):
                yield f"{w.name}: two mounts have one path"
            for mount in container.get("volumeMounts", []):
                mounted.add(mount["name"])
                if mount["name"] not in volumes:
                    yield f"{w.name}: {container['name']} mounts {mount['name']}, which is no volume"
        for unused in set(volumes) - mounted:
            yield f"{w.name}: nobody mounts the volume {unused}"


def deployments_select_their_own(objects, _external):
    everything = workloads(objects)
    for w in deployments(objects):
        selector = w.owner["spec"]["selector"]["matchLabels"]
        for other in everything:
            if selects(selector, other.labels) != (other.name == w.name and other.owner["kind"] == w.owner["kind"]):
                yield f"Deployment {w.name}: its selector is wrong about the pods of {other.name}"


def others_select_somebody(objects, _external):
    """Each Service, budget, policy and monitor picks pods, and those of one component alone."""
    places = {"Service": lambda s: s["selector"], "PodDisruptionBudget": lambda s: s["selector"]["matchLabels"],
              "NetworkPolicy": lambda s: s["podSelector"]["matchLabels"], "PodMonitor": lambda s: s["selector"]["matchLabels"]}
    for o in objects:
        if o["kind"] in places:
            picked = {w.component for w in workloads(objects) if selects(places[o["kind"]](o["spec"]), w.labels)}
            if len(picked) != 1 or "test" in picked:
                yield f"{o['kind']} {o['metadata']['name']}: selects {sorted(picked) or 'nobody'}"


def names_fit(objects, _external):
    for o in objects:
        name = o["metadata"]["name"]
        limit = 253 if o["kind"] in LONG_NAMES else 63
        pattern = r"[a-z]([-a-z0-9]*[a-z0-9])?" if o["kind"] == "Service" else r"[a-z0-9]([-.a-z0-9]*[a-z0-9])?"
        if len(name) > limit or not re.fullmatch(pattern, name):
            yield f"{o['kind']} {name!r}: not a name, or longer than {limit}"
        for key, value in o["metadata"].get("labels", {}).items():
            if len(value) > 63 or not re.fullmatch(r"([A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?)?", value):
                yield f"{o['kind']} {name}: label {key}={value!r}"
    seen = set()
    for o in objects:
        key = (o["apiVersion"], o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"])
        if key in seen:
            yield f"{o['kind']} {o['metadata']['name']}: stands twice"
        seen.add(key)


def objects_have_a_namespace(objects, _external):
    for o in objects:
        if ("namespace" in o["metadata"]) == (o["kind"] in ("PriorityClass", "Namespace")):
            yield f"{o['kind']} {o['metadata']['name']}: namespace"


RULES = [references_exist, config_keys_exist, mounts_have_volumes, deployments_select_their_own, others_select_somebody,
         names_fit, objects_have_a_namespace]
