"""NetworkPolicies as a cluster's network would apply them: who reaches whom at which port."""

from objects import deployments, http_port, port_of, selects, settings, workloads

# A pod of the namespace that is none of the release's.
NEIGHBOUR = {"app": "neighbour"}


def policies(objects, labels, direction):
    return [o for o in objects if o["kind"] == "NetworkPolicy" and direction in o["spec"]["policyTypes"]
            and selects(o["spec"]["podSelector"].get("matchLabels"), labels)]


def picks(peers, other):
    """Whether peers pick `other`: a pod's labels in this namespace, or `namespace NAME` outside. No peers pick all."""
    if not peers:
        return True
    for peer in peers:
        if isinstance(other, str):
            labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
            if f"namespace {labels.get('kubernetes.io/metadata.name')}" == other and "podSelector" not in peer:
                return True
        elif "podSelector" in peer and "namespaceSelector" not in peer:
            wanted = peer["podSelector"].get("matchLabels", {})
            if not wanted or selects(wanted, other):
                return True
    return False


def allowed(objects, labels, direction, other, port):
    """Whether a pod takes (Ingress) or makes (Egress) connections from or to `other`; without a policy it does."""
    found = policies(objects, labels, direction)
    side = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}[direction]
    return not found or any(
        picks(rule.get(side[1]), other) and any(p["port"] == port for p in rule.get("ports", [{"port": port}]))
        for policy in found for rule in policy["spec"].get(side[0], []))


def callers_of(objects, labels, port):
    """Peers that reach a port by rules that name it."""
    return [peer for policy in policies(objects, labels, "Ingress") for rule in policy["spec"].get("ingress", [])
            if any(p["port"] == port for p in rule.get("ports", [])) for peer in rule.get("from", [])]


def policies_let_through_what_is_needed(objects, external):
    pods = deployments(objects)
    replicas = [w for w in pods if w.component == "replica"]
    routers = [w for w in pods if w.component == "router"]
    called = routers or replicas
    for w in pods:
        told = settings(objects, w)
        grpc, admin = port_of(told["server"]["listen"]), port_of(told["admin"]["listen"])
        if w in called:
            for test in (t for t in workloads(objects) if not t.long_lived):
                if not allowed(objects, w.labels, "Ingress", test.labels, grpc):
                    yield f"{w.name}: the test does not reach it"
            http = http_port(told)
            if http and callers_of(objects, w.labels, http) != callers_of(objects, w.labels, grpc):
                yield f"{w.name}: others reach HTTP than reach gRPC"
            if not external.get("callers chosen"):
                for port in (port for port in (grpc, http) if port and not allowed(objects, w.labels, "Ingress", NEIGHBOUR, port)):
                    yield f"{w.name}: neighbours do not reach port {port}"
        for namespace in external.get("monitored from", ["monitoring"]):
            if not allowed(objects, w.labels, "Ingress", f"namespace {namespace}", admin):
                yield f"{w.name}: Prometheus does not reach its admin port"
        if not allowed(objects, w.labels, "Egress", "namespace kube-system", 53):
            yield f"{w.name}: does not reach DNS"
        if w in routers:
            for replica in replicas:
                if not allowed(objects, w.labels, "Egress", replica.labels, grpc):
                    yield f"{w.name}: may not call {replica.name}"
                if not allowed(objects, replica.labels, "Ingress", w.labels, grpc):
                    yield f"{replica.name}: is not to be called by {w.name}"
            by_watch = told["router"]["replicas"].startswith("kubernetes")
            ports = {p["port"] for o in policies(objects, w.labels, "Egress") for r in o["spec"]["egress"] for p in r.get("ports", [])}
            if policies(objects, w.labels, "Egress") and (6443 in ports) != by_watch:
                yield f"{w.name}: reaches the API server, or does not, the other way round than it needs"


def policies_keep_others_away(objects, external):
    """Nobody outside of the namespace calls, nobody but Prometheus reads metrics, unless values say so."""
    if external.get("no network policies") or external.get("callers chosen"):
        return
    for w in deployments(objects):
        told = settings(objects, w)
        stranger = "namespace strangers"
        for port in (port_of(told["server"]["listen"]), port_of(told["admin"]["listen"]), http_port(told)):
            if port and allowed(objects, w.labels, "Ingress", stranger, port):
                yield f"{w.name}: other namespaces reach port {port}"
        if allowed(objects, w.labels, "Ingress", NEIGHBOUR, port_of(told["admin"]["listen"])):
            yield f"{w.name}: neighbours read its metrics"


RULES = [policies_let_through_what_is_needed, policies_keep_others_away]
