"""Kubernetes' Pod Security Standard `restricted` in full, and who may ask the API server what."""

from objects import deployments, named, settings, workloads

# `image` is not on the standard's list as published: a read-only mount of files, chosen by
# `model.source: imageVolume`, which README.md warns of.
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret", "image"}


def pods_are_restricted(objects, _external):
    for w in workloads(objects):
        spec, pod = w.spec, w.spec.get("securityContext", {})
        for key in ["hostNetwork", "hostPID", "hostIPC"]:
            if spec.get(key):
                yield f"{w.name}: {key}"
        if pod.get("windowsOptions", {}).get("hostProcess") or pod.get("sysctls"):
            yield f"{w.name}: host process or sysctls"
        for volume in spec.get("volumes", []):
            if set(volume) - {"name"} - VOLUMES:
                yield f"{w.name}: volume {volume['name']} is of a restricted type"
        if "ephemeralContainers" in spec:
            yield f"{w.name}: ephemeral containers"
        for container in w.all_containers:
            for fault in container_faults(container, pod):
                yield f"{w.name}: {container['name']}: {fault}"


def container_faults(container, pod):
    own = container.get("securityContext", {})

    def effective(key):
        return own.get(key, pod.get(key))

    if own.get("privileged"):
        yield "is privileged"
    if own.get("allowPrivilegeEscalation") is not False:
        yield "allows privilege escalation"
    capabilities = own.get("capabilities", {})
    if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
        yield "keeps capabilities"
    if effective("runAsNonRoot") is not True:
        yield "may run as root"
    if effective("runAsUser") == 0:
        yield "runs as root"
    if effective("seccompProfile") not in ({"type": "RuntimeDefault"},) and (effective("seccompProfile") or {}).get("type") != "Localhost":
        yield "has no seccomp profile"
    if own.get("procMount", "Default") != "Default":
        yield "shows /proc"
    if own.get("seLinuxOptions", pod.get("seLinuxOptions")) or own.get("appArmorProfile", {}).get("type") == "Unconfined":
        yield "SELinux or AppArmor"
    if any("hostPort" in p for p in container.get("ports", [])):
        yield "takes a port of the host"
    if own.get("readOnlyRootFilesystem") is not True:
        yield "may write to its root"


def nothing_is_mounted_to_be_written(objects, _external):
    """But an empty /models by the container that fills it."""
    for w in workloads(objects):
        for container in w.all_containers:
            for mount in container.get("volumeMounts", []):
                filler = container["name"] == "model" and mount["mountPath"] == "/models"
                if not mount.get("readOnly") and not filler:
                    yield f"{w.name}: {container['name']} may write {mount['mountPath']}"


def secrets_are_mounted_key_by_key(objects, _external):
    """A pod gets the keys that it needs: a Secret with authorities may hold their private key beside."""
    for w in workloads(objects):
        for volume in w.spec.get("volumes", []):
            if "secret" not in volume:
                continue
            keys = [i["key"] for i in volume["secret"].get("items", [])]
            pair = volume["name"] in ("tls", "router-tls", "client-tls")
            if keys != ["tls.crt", "tls.key"] if pair else len(keys) != 1 or keys == ["tls.key"]:
                yield f"{w.name}: volume {volume['name']} mounts {keys or 'all keys'}"


def tokens_are_mounted_where_needed(objects, _external):
    for w in workloads(objects):
        needed = False
        if w.long_lived and w.component == "router":
            needed = settings(objects, w)["router"]["replicas"].startswith("kubernetes")
        if w.spec.get("automountServiceAccountToken") is not needed:
            yield f"{w.name}: automountServiceAccountToken is not {needed}"
    for account in named(objects, "ServiceAccount").values():
        if account.get("automountServiceAccountToken") is not False:
            yield f"ServiceAccount {account['metadata']['name']}: mounts its token into whatever uses it"


def roles_are_what_is_needed(objects, _external):
    needed = any(settings(objects, w)["router"]["replicas"].startswith("kubernetes")
                 for w in deployments(objects) if w.component == "router")
    roles = [o for o in objects if o["kind"] in ("Role", "ClusterRole")]
    if any(o["kind"] in ("ClusterRole", "ClusterRoleBinding") for o in objects):
        yield "there is a role in the whole cluster"
    if len(roles) != needed:
        yield f"{len(roles)} roles, {int(needed)} needed"
    for role in roles:
        rules = [{k: sorted(v) for k, v in rule.items()} for rule in role["rules"]]
        if rules != [{"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]:
            yield f"Role {role['metadata']['name']}: {rules}"
    for binding in named(objects, "RoleBinding").values():
        routers = {w.spec["serviceAccountName"] for w in deployments(objects) if w.component == "router"}
        if {s["name"] for s in binding["subjects"]} != routers or len(binding["subjects"]) != 1:
            yield f"RoleBinding {binding['metadata']['name']}: is not of the router's account alone"
    replicas = {w.spec["serviceAccountName"] for w in deployments(objects) if w.component == "replica"}
    routers = {w.spec["serviceAccountName"] for w in deployments(objects) if w.component == "router"}
    if replicas & routers:
        yield "replicas and router share an account"


RULES = [pods_are_restricted, nothing_is_mounted_to_be_written, secrets_are_mounted_key_by_key,
         tokens_are_mounted_where_needed, roles_are_what_is_needed]
