"""Ways to break what is rendered, each with the rule that must notice."""

from objects import named


def container(objects, name):
    return named(objects, "Deployment")[name]["spec"]["template"]["spec"]["containers"][0]


def pod(objects, name):
    return named(objects, "Deployment")[name]["spec"]["template"]["spec"]


def toml(objects, name, old, new):
    data = named(objects, "ConfigMap")[name]["data"]
    assert old in data["sleuth.toml"]
    data["sleuth.toml"] = data["sleuth.toml"].replace(old, new)


def drop(objects, kind, name):
    objects.remove(named(objects, kind)[name])


def put(target, *path):
    *way, key, value = path
    for step in way:
        target = target[step]
    target[key] = value


# Name: profile, rule, change.
MUTATIONS = {
    "grace as long as the drain": ("defaults", "grace_outlives_drain", lambda o: put(pod(o, "sleuth-cpu"), "terminationGracePeriodSeconds", 70)),
    "no preStop": ("defaults", "grace_outlives_drain", lambda o: container(o, "sleuth-router").pop("lifecycle")),
    "router ends with replicas": ("defaults", "router_outlives_replicas", lambda o: toml(o, "sleuth-router", "drain_deadline_seconds = 75", "drain_deadline_seconds = 60")),
    "another listen port": ("defaults", "ports_match_settings", lambda o: toml(o, "sleuth-cpu", ":50051", ":50099")),
    "another HTTP port": ("HTTP", "ports_match_settings", lambda o: toml(o, "sleuth-router", ":50053", ":50099")),
    "HTTP on the admin port": ("HTTP", "ports_match_settings", lambda o: put(container(o, "sleuth-router"), "ports", 2, "containerPort", 50052)),
    "HTTP that no Service has": ("HTTP", "http_is_where_callers_go", lambda o: named(o, "Service")["sleuth"]["spec"]["ports"].pop()),
    "HTTP of a replica behind a router": ("HTTP", "http_is_where_callers_go", lambda o: toml(
        o, "sleuth-cpu", "[http]\n", '[http]\nlisten = "0.0.0.0:50053"\ninsecure = true\n')),
    "HTTP that does not start": ("HTTP", "http_is_where_callers_go", lambda o: toml(o, "sleuth-router", "[http]\ninsecure = true\n", "[http]\n")),
    "HTTP in the clear beside TLS": ("HTTP, secured", "http_is_where_callers_go", lambda o: toml(o, "sleuth-router", "[http]\n", "[http]\ninsecure = true\n")),
    "HTTPS said to be plain": ("HTTP, secured", "http_is_where_callers_go", lambda o: put(named(o, "Service")["sleuth"], "spec", "ports", 1, "appProtocol", "http")),
    "probe on the gRPC port": ("defaults", "probes_match_settings", lambda o: put(container(o, "sleuth-cpu"), "readinessProbe", "httpGet", "port", "grpc")),
    "no startup probe": ("defaults", "probes_match_settings", lambda o: container(o, "sleuth-router").pop("startupProbe")),
    "settings change, checksum does not": ("defaults", "rolls_with_its_settings", lambda o: toml(o, "sleuth-cpu", "json = true", "json = false")),
    "route where serve belongs": ("defaults", "starts_the_right_command", lambda o: put(container(o, "sleuth-cpu"), "args", 0, "route")),
    "certificate not mounted": ("TLS by secrets", "files_of_settings_are_mounted", lambda o: container(o, "sleuth-cpu")["volumeMounts"].pop()),
    "no toleration for GPUs": ("gpu pool", "images_suit_devices", lambda o: pod(o, "sleuth-gpu").pop("tolerations")),
    "image without CUDA": ("gpu pool", "images_suit_devices", lambda o: put(container(o, "sleuth-gpu"), "image", "sleuth:0.1.0")),
    "anybody reaches replicas": ("defaults", "replicas_without_credentials_are_shut_off",
                                 lambda o: put(named(o, "NetworkPolicy")["sleuth-replicas"], "spec", "ingress", 0, "from", [{"podSelector": {}}])),
    "no policy": ("defaults", "replicas_without_credentials_are_shut_off", lambda o: drop(o, "NetworkPolicy", "sleuth-replicas")),
    "router may not call": ("defaults", "policies_let_through_what_is_needed", lambda o: put(named(o, "NetworkPolicy")["sleuth-router"], "spec", "egress", [])),
    "neighbours may not call": ("defaults", "policies_let_through_what_is_needed", lambda o: named(o, "NetworkPolicy")["sleuth-router"]["spec"]["ingress"][0]["from"].pop(0)),
    "HTTP out of reach": ("HTTP", "policies_let_through_what_is_needed", lambda o: named(o, "NetworkPolicy")["sleuth-router"]["spec"]["ingress"][0]["ports"].pop()),
    "API server out of reach": ("defaults", "policies_let_through_what_is_needed", lambda o: named(o, "NetworkPolicy")["sleuth-router"]["spec"]["egress"].pop()),
    "all namespaces call": ("defaults", "policies_keep_others_away", lambda o: named(o, "NetworkPolicy")["sleuth-router"]["spec"]["ingress"][0].pop("from")),
    "all namespaces call over HTTP": ("HTTP", "policies_keep_others_away", lambda o: named(o, "NetworkPolicy")["sleuth-router"]["spec"]["ingress"].append(
        {"ports": [{"port": 50053}]})),
    "neighbours read metrics": ("defaults", "policies_keep_others_away", lambda o: put(
        named(o, "NetworkPolicy")["sleuth-replicas"], "spec", "ingress", 1, "from", [{"podSelector": {}}])),
    "Service to no port": ("defaults", "services_reach_ports", lambda o: put(named(o, "Service")["sleuth"], "spec", "ports", 0, "targetPort", "http")),
    "Service not headless": ("defaults", "router_follows_a_service", lambda o: named(o, "Service")["sleuth-replicas"]["spec"].pop("clusterIP")),
    "router follows another Service": ("defaults", "router_follows_a_service", lambda o: toml(o, "sleuth-router", "sleuth-replicas:grpc", "sleuth:grpc")),
    "router speaks in the clear to TLS": ("TLS by secrets", "router_follows_a_service", lambda o: toml(o, "sleuth-router", "kubernetes+https", "kubernetes")),
    "Deployment selects both components": ("defaults", "deployments_select_their_own",
                                           lambda o: put(named(o, "Deployment")["sleuth-cpu"], "spec", "selector", "matchLabels", {"app.kubernetes.io/name": "sleuth"})),
    "Service selects nobody": ("defaults", "others_select_somebody", lambda o: put(named(o, "Service")["sleuth"], "spec", "selector", "app.kubernetes.io/component", "gateway")),
    "mount without volume": ("defaults", "mounts_have_volumes", lambda o: pod(o, "sleuth-cpu").pop("volumes")),
    "volume that nobody mounts": ("defaults", "mounts_have_volumes", lambda o: pod(o, "sleuth-cpu")["volumes"].append({"name": "scratch", "emptyDir": {}})),
    "Secret that nobody named": ("TLS by secrets", "references_exist", lambda o: put(pod(o, "sleuth-cpu"), "volumes", 1, "secret", "secretName", "other")),
    "no ServiceAccount": ("defaults", "references_exist", lambda o: drop(o, "ServiceAccount", "sleuth-router")),
    "ConfigMap without the file": ("defaults", "config_keys_exist", lambda o: put(named(o, "ConfigMap")["sleuth-cpu"], "data", {"x.toml": ""})),
    "name too long": ("defaults", "names_fit", lambda o: put(named(o, "Service")["sleuth"], "metadata", "name", "s" * 64)),
    "object twice": ("defaults", "names_fit", lambda o: o.append(named(o, "Service")["sleuth"])),
    "no namespace": ("defaults", "objects_have_a_namespace", lambda o: named(o, "Role")["sleuth-router"]["metadata"].pop("namespace")),
    "HPA of nothing": ("HPA", "scalers_have_targets", lambda o: put(named(o, "HorizontalPodAutoscaler")["sleuth-cpu"], "spec", "scaleTargetRef", "name", "sleuth")),
    "HPA and replicas": ("HPA", "scaled_deployments_leave_replicas_alone", lambda o: put(named(o, "Deployment")["sleuth-cpu"], "spec", "replicas", 2)),
    "HPA by CPU": ("HPA", "scalers_go_by_predicted_queue", lambda o: put(named(o, "HorizontalPodAutoscaler")["sleuth-cpu"], "spec", "metrics", [])),
    "budget of none": ("defaults", "budgets_leave_capacity", lambda o: put(named(o, "PodDisruptionBudget")["sleuth-cpu"], "spec", "maxUnavailable", 0)),
    "budget of all": ("defaults", "budgets_leave_capacity", lambda o: put(named(o, "PodDisruptionBudget")["sleuth-cpu"], "spec", "maxUnavailable", "100%")),
    "no budget": ("defaults", "several_have_a_budget", lambda o: drop(o, "PodDisruptionBudget", "sleuth-router")),
    "rollout that cannot begin": ("defaults", "rollouts_begin_and_leave_capacity",
                                  lambda o: put(named(o, "Deployment")["sleuth-cpu"], "spec", "strategy", "rollingUpdate", "maxSurge", 0)),
    "rollout without patience": ("defaults", "rollouts_wait_for_starts", lambda o: put(named(o, "Deployment")["sleuth-cpu"], "spec", "progressDeadlineSeconds", 60)),
    "router without patience": ("defaults", "rollouts_wait_for_starts", lambda o: put(named(o, "Deployment")["sleuth-router"], "spec", "progressDeadlineSeconds", 180)),
    "router that is killed before replicas start": ("defaults", "probes_match_settings", lambda o: put(container(o, "sleuth-router"), "startupProbe", "httpGet", "path", "/startupz")),
    "spread among all": ("defaults", "spread_selects_its_own", lambda o: put(
        pod(o, "sleuth-cpu"), "topologySpreadConstraints", 0, "labelSelector", "matchLabels", {"app.kubernetes.io/name": "sleuth"})),
    "privileged": ("defaults", "pods_are_restricted", lambda o: put(container(o, "sleuth-cpu"), "securityContext", "privileged", True)),
    "root": ("defaults", "pods_are_restricted", lambda o: put(pod(o, "sleuth-cpu"), "securityContext", "runAsNonRoot", False)),
    "capabilities": ("defaults", "pods_are_restricted", lambda o: container(o, "sleuth-cpu")["securityContext"].pop("capabilities")),
    "folder of the host": ("defaults", "pods_are_restricted", lambda o: put(pod(o, "sleuth-cpu"), "volumes", 0, {"name": "config", "hostPath": {"path": "/"}, "configMap": {"name": "sleuth-cpu"}})),
    "writable root": ("model by a container", "pods_are_restricted", lambda o: put(pod(o, "sleuth-cpu"), "initContainers", 0, "securityContext", "readOnlyRootFilesystem", False)),
    "writable mount": ("defaults", "nothing_is_mounted_to_be_written", lambda o: put(container(o, "sleuth-cpu"), "volumeMounts", 0, "readOnly", False)),
    "router gets the replicas' private key": ("TLS by secrets", "secrets_are_mounted_key_by_key", lambda o: next(
        v for v in pod(o, "sleuth-router")["volumes"] if v["name"] == "replica-ca")["secret"].pop("items")),
    "token in replicas": ("defaults", "tokens_are_mounted_where_needed", lambda o: put(pod(o, "sleuth-cpu"), "automountServiceAccountToken", True)),
    "router without token": ("defaults", "tokens_are_mounted_where_needed", lambda o: put(pod(o, "sleuth-router"), "automountServiceAccountToken", False)),
    "role that reads secrets": ("defaults", "roles_are_what_is_needed", lambda o: named(o, "Role")["sleuth-router"]["rules"].append(
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]})),
    "role of replicas": ("defaults", "roles_are_what_is_needed", lambda o: put(named(o, "RoleBinding")["sleuth-router"], "subjects", 0, "name", "sleuth-replicas")),
}
