"""Numbers of replicas: budgets, autoscalers, rollouts, spread."""

import math

from objects import deployments, selects


def scalers(objects):
    for o in objects:
        if o["kind"] == "HorizontalPodAutoscaler":
            yield o, o["spec"]["minReplicas"], o["spec"]["maxReplicas"]
        elif o["kind"] == "ScaledObject":
            yield o, o["spec"]["minReplicaCount"], o["spec"]["maxReplicaCount"]


def least_replicas(objects, workload):
    for o, least, _ in scalers(objects):
        if o["spec"]["scaleTargetRef"]["name"] == workload.name:
            return least
    return workload.owner["spec"].get("replicas", 1)


def count(of, total, up=True):
    if isinstance(of, str):
        share = int(of.rstrip("%")) * total / 100
        return math.ceil(share) if up else math.floor(share)
    return of


def scalers_have_targets(objects, _external):
    names = {w.name for w in deployments(objects)}
    targets = []
    for o, least, most in scalers(objects):
        target = o["spec"]["scaleTargetRef"]
        targets.append(target["name"])
        if target["kind"] != "Deployment" or target["name"] not in names:
            yield f"{o['kind']} {o['metadata']['name']}: there is no {target['name']}"
        if not 1 <= least <= most:
            yield f"{o['kind']} {o['metadata']['name']}: {least} to {most} replicas"
    if len(set(targets)) != len(targets):
        yield "two autoscalers have one target"


def scaled_deployments_leave_replicas_alone(objects, _external):
    scaled = {o["spec"]["scaleTargetRef"]["name"] for o, _, _ in scalers(objects)}
    for w in deployments(objects):
        if (w.name in scaled) == ("replicas" in w.owner["spec"]):
            yield f"{w.name}: spec.replicas is set by an autoscaler or by the chart, not by both or none"


def scalers_go_by_predicted_queue(objects, _external):
    for o, _, _ in scalers(objects):
        told = str(o["spec"].get("metrics", o["spec"].get("triggers")))
        if "sleuth_predicted_queue_seconds" not in told or "AverageValue" not in told:
            yield f"{o['metadata']['name']}: does not scale on the mean predicted wait"


def budgets_leave_capacity(objects, _external):
    """A budget lets somebody go, and where there are several not all."""
    for o in objects:
        if o["kind"] != "PodDisruptionBudget":
            continue
        for w in deployments(objects):
            if not selects(o["spec"]["selector"]["matchLabels"], w.labels):
                continue
            total = max(least_replicas(objects, w), 2)
            if "minAvailable" in o["spec"]:
                free = total - count(o["spec"]["minAvailable"], total)
            else:
                free = count(o["spec"]["maxUnavailable"], total)
            if not 0 < free < total:
                yield f"PodDisruptionBudget {o['metadata']['name']}: lets {free} of {total} go"


def several_have_a_budget(objects, _external):
    budgets = [o["spec"]["selector"]["matchLabels"] for o in objects if o["kind"] == "PodDisruptionBudget"]
    for w in deployments(objects):
        covering = sum(selects(b, w.labels) for b in budgets)
        if covering > 1 or (least_replicas(objects, w) > 1 and covering != 1):
            yield f"{w.name}: {covering} budgets cover it"


def rollouts_begin_and_leave_capacity(objects, _external):
    for w in deployments(objects):
        total = least_replicas(objects, w)
        rolling = w.owner["spec"]["strategy"]["rollingUpdate"]
        surge, gone = count(rolling["maxSurge"], total), count(rolling["maxUnavailable"], total, up=False)
        if surge == 0 and gone == 0:
            yield f"{w.name}: a rollout could not begin"
        if total > 1 and gone >= total:
            yield f"{w.name}: a rollout may take all replicas at once"


def rollouts_wait_for_starts(objects, _external):
    """A router is ready once a replica is, so it waits for replicas' starts too."""
    starts = {}
    for w in deployments(objects):
        probe = w.containers[0]["startupProbe"]
        starts[w.name] = probe["periodSeconds"] * probe["failureThreshold"]
    for w in deployments(objects):
        longest = max(starts.values()) if w.component == "router" else starts[w.name]
        if w.owner["spec"]["progressDeadlineSeconds"] <= longest:
            yield f"{w.name}: a rollout is given up before a start is"


def spread_selects_its_own(objects, _external):
    for w in deployments(objects):
        if not w.spec.get("topologySpreadConstraints"):
            yield f"{w.name}: is not spread"
        for constraint in w.spec.get("topologySpreadConstraints", []):
            selector = constraint["labelSelector"]["matchLabels"]
            picked = [o.name for o in deployments(objects) if selects(selector, o.labels)]
            if picked != [w.name]:
                yield f"{w.name}: is spread among {picked}"


RULES = [scalers_have_targets, scaled_deployments_leave_replicas_alone, scalers_go_by_predicted_queue, budgets_leave_capacity,
         several_have_a_budget, rollouts_begin_and_leave_capacity, rollouts_wait_for_starts, spread_selects_its_own]
