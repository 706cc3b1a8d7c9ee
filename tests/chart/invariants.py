"""What holds for whatever the chart renders. Each rule takes objects and yields faults."""

import re

import network
import references
import scaling
import security
from objects import deployments, http_port, port_of, settings, workloads


def grace_outlives_drain(objects, _external):
    """SIGKILL never comes before the server would have ended by itself."""
    for w in deployments(objects):
        sleep = w.containers[0].get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds")
        if not sleep:
            yield f"{w.name}: no preStop sleep"
            continue
        server = settings(objects, w)["server"]
        needed = sleep + server["drain_lag_seconds"] + server["drain_deadline_seconds"]
        if w.spec.get("terminationGracePeriodSeconds", 30) <= needed:
            yield f"{w.name}: the grace period is not longer than lag and deadline, {needed} s"


def router_outlives_replicas(objects, _external):
    """A router finishes what a replica gives back at its own deadline."""
    deadlines = {"replica": [0], "router": []}
    for w in deployments(objects):
        deadlines[w.component].append(settings(objects, w)["server"]["drain_deadline_seconds"])
    for deadline in deadlines["router"]:
        if deadline <= max(deadlines["replica"]):
            yield f"the router's drain deadline, {deadline} s, is not longer than a replica's"


def ports_match_settings(objects, _external):
    for w in deployments(objects):
        ports = {p["name"]: p["containerPort"] for p in w.containers[0]["ports"]}
        told = settings(objects, w)
        if ports.get("grpc") != port_of(told["server"]["listen"]):
            yield f"{w.name}: port grpc is not that of server.listen"
        if ports.get("admin") != port_of(told["admin"]["listen"]):
            yield f"{w.name}: port admin is not that of admin.listen"
        if ports.get("http") != http_port(told):
            yield f"{w.name}: port http is not that of http.listen"
        if len(set(ports.values())) != len(ports):
            yield f"{w.name}: two of its ports are one"


def http_is_where_callers_go(objects, _external):
    """Those that the client Service has a port for HTTP to serve it, and no others; in the clear only where gRPC is."""
    for w in deployments(objects):
        told = settings(objects, w)
        callers = [o for o in objects if o["kind"] == "Service" and o["spec"].get("clusterIP") != "None"
                   and references.selects(o["spec"]["selector"], w.labels)]
        offered = any(p["name"] == "http" for o in callers for p in o["spec"]["ports"])
        if offered != (http_port(told) is not None):
            yield f"{w.name}: serves HTTP, or does not, the other way round than its Service says"
        if told.get("http", {}).get("insecure", False) != (offered and "tls" not in told):
            yield f"{w.name}: http.insecure does not agree with tls"
    for o in (o for o in objects if o["kind"] == "Service"):
        spoken = {p["name"]: p.get("appProtocol") for p in o["spec"]["ports"]}
        secured = any("tls" in settings(objects, w) for w in deployments(objects) if references.selects(o["spec"]["selector"], w.labels))
        if spoken.get("http", "https" if secured else "http") != ("https" if secured else "http"):
            yield f"Service {o['metadata']['name']}: says another protocol of HTTP than is spoken"


def probes_match_settings(objects, _external):
    for w in deployments(objects):
        # A router's /startupz waits for a replica, however long that takes: no reason to start it again.
        paths = {"startupProbe": "/startupz" if w.component == "replica" else "/livez", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
        ports = {p["name"]: p["containerPort"] for p in w.containers[0]["ports"]}
        admin = port_of(settings(objects, w)["admin"]["listen"])
        for probe, path in paths.items():
            get = w.containers[0].get(probe, {}).get("httpGet")
            if get is None:
                yield f"{w.name}: no {probe}"
            elif get["path"] != path or ports.get(get["port"], get["port"]) != admin:
                yield f"{w.name}: {probe} does not ask {path} of admin.listen"
            elif get.get("scheme", "HTTP") != "HTTP":
                yield f"{w.name}: {probe} does not speak plain HTTP, as the admin port does"


def starts_the_right_command(objects, _external):
    commands = {"replica": "serve", "router": "route"}
    for w in deployments(objects):
        args = w.containers[0]["args"]
        if args != [commands.get(w.component), "--config", "/etc/sleuth/sleuth.toml"]:
            yield f"{w.name}: is started with {args}"
        if "command" in w.containers[0]:
            yield f"{w.name}: the image's entry point is replaced"


def rolls_with_its_settings(objects, _external):
    """The checksum is of the very text that is mounted."""
    import hashlib
    from objects import named
    for w in deployments(objects):
        volume = next(v for v in w.spec["volumes"] if v["name"] == "config")
        text = named(objects, "ConfigMap")[volume["configMap"]["name"]]["data"]["sleuth.toml"]
        told = w.annotations.get("checksum/config", "")
        if hashlib.sha256(text.rstrip("\n").encode()).hexdigest() != told:
            yield f"{w.name}: checksum/config is not that of the settings"


def files_of_settings_are_mounted(objects, _external):
    """Every absolute path that settings name lies in the image's own folders or under a mount."""
    for w in deployments(objects):
        mounts = [m["mountPath"] for m in w.containers[0]["volumeMounts"]]
        for section, keys in settings(objects, w).items():
            for key, value in keys.items():
                if isinstance(value, str) and value.startswith(("/run/", "/models", "/etc/sleuth")):
                    if not any(value == m or value.startswith(m.rstrip("/") + "/") for m in mounts):
                        yield f"{w.name}: {section}.{key} names {value}, and nothing is mounted there"


def images_suit_devices(objects, _external):
    """GPUs in limits if and only if the pool's toleration and image are for them."""
    for w in deployments(objects):
        limits = w.containers[0].get("resources", {}).get("limits", {})
        gpus = [k for k in limits if k.endswith("/gpu")]
        tolerated = any(t.get("key", "").endswith("/gpu") for t in w.spec.get("tolerations", []))
        suffixed = re.search(r"-cuda\d*$|@sha256:", w.containers[0]["image"]) is not None
        if bool(gpus) != tolerated or (gpus and not suffixed):
            yield f"{w.name}: limits, toleration and image do not agree on GPUs"


def replicas_without_credentials_are_shut_off(objects, external):
    """Replicas that trust `sleuth-tenant` are reached by routers alone, where policies are on."""
    if external.get("no network policies"):
        return
    router = [w.labels for w in deployments(objects) if w.component == "router"]
    for w in deployments(objects):
        told = settings(objects, w)
        if "tenant_header" not in told["server"]:
            continue
        grpc = port_of(told["server"]["listen"])
        policies = [o for o in objects if o["kind"] == "NetworkPolicy"
                    and references.selects(o["spec"]["podSelector"].get("matchLabels"), w.labels)]
        if not policies:
            yield f"{w.name}: trusts a header, and no NetworkPolicy covers it"
        for policy in policies:
            for rule in policy["spec"].get("ingress", []):
                if all(p["port"] != grpc for p in rule.get("ports", [{"port": grpc}])):
                    continue
                for peer in rule.get("from", [{}]):
                    labels = peer.get("podSelector", {}).get("matchLabels")
                    if set(peer) != {"podSelector"} or not any(references.selects(labels, r) for r in router):
                        yield f"{w.name}: trusts a header, and {peer} reaches it"


def services_reach_ports(objects, _external):
    for o in (o for o in objects if o["kind"] == "Service"):
        for w in workloads(objects):
            if references.selects(o["spec"]["selector"], w.labels):
                names = {p["name"] for p in w.containers[0].get("ports", [])}
                for port in o["spec"]["ports"]:
                    if port["targetPort"] not in names:
                        yield f"Service {o['metadata']['name']}: {w.name} has no port {port['targetPort']}"


def router_follows_a_service(objects, _external):
    """What `router.replicas` names is the headless Service that selects all replicas."""
    for w in deployments(objects):
        if w.component != "router":
            continue
        told = settings(objects, w)["router"]["replicas"]
        scheme, _, rest = told.partition("://")
        if scheme.startswith("kubernetes"):
            namespace, service, port = re.fullmatch(r"([^/]+)/([^:]+):(\w+)", rest).groups()
        else:
            service, namespace, port = re.fullmatch(r"([^.]+)\.([^.]+)\.svc\.[^:]+:(\d+)", rest).groups()
        found = [o for o in objects if o["kind"] == "Service" and o["metadata"]["name"] == service
                 and o["metadata"]["namespace"] == namespace]
        if not found:
            yield f"{w.name}: router.replicas names {told}, and there is no such Service"
            continue
        spec = found[0]["spec"]
        if spec.get("clusterIP") != "None" or spec.get("publishNotReadyAddresses"):
            yield f"{service}: not a headless Service of ready replicas"
        if not any(port in (p["name"], str(p["port"])) for p in spec["ports"]):
            yield f"{service}: has no port {port}"
        for other in deployments(objects):
            if (other.component == "replica") != references.selects(spec["selector"], other.labels):
                yield f"{service}: selects {other.name} wrongly"
        secured = "tls" in settings(objects, next(x for x in deployments(objects) if x.component == "replica"))
        if secured != scheme.endswith("+https"):
            yield f"{w.name}: the router and the replicas do not agree on TLS"


RULES = [
    grace_outlives_drain, router_outlives_replicas, ports_match_settings, http_is_where_callers_go, probes_match_settings,
    starts_the_right_command,
    rolls_with_its_settings, files_of_settings_are_mounted, images_suit_devices, replicas_without_credentials_are_shut_off,
    services_reach_ports, router_follows_a_service,
    *network.RULES, *references.RULES, *scaling.RULES, *security.RULES,
]


def faults(objects, external=None):
    """All faults of a rendering. `external` says what lies outside of it, see `references.external`."""
    return [f"{rule.__name__}: {fault}" for rule in RULES for fault in told(rule, objects, external or {})]


def told(rule, objects, external):
    """A rule that cannot even read what it is about is broken too."""
    try:
        return list(rule(objects, external))
    except (LookupError, RuntimeError, TypeError) as error:
        return [f"cannot be told: {error!r}"]
