"""Deployments that roll, and a drain that heeds disruption budgets."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from endpoints import ApiServer, Endpoints
from manifests import Manifests, selects, share, template_hash
from pod import Pod

STEP = 0.1
EVICTION_PAUSE = 1.0


class Failed(Exception):
    """The rehearsal cannot go on; no SystemExit, which would leave the event loop with its processes."""


class Cluster:
    """Pods of every Deployment of the manifests, kept as these say."""

    def __init__(self, manifests: Manifests, binary: Path, work: Path, endpoints: Endpoints, api: ApiServer) -> None:
        self.manifests = manifests
        self.binary = binary
        self.work = work
        self.endpoints = endpoints
        self.api = api
        self.tasks: list[asyncio.Task] = []
        # The fewest ready pods that a Deployment had since it was whole.
        self.fewest: dict[str, int] = {}
        self.most: dict[str, int] = {}

    @property
    def pods(self) -> list[Pod]:
        return self.endpoints.pods

    def of(self, deployment: str) -> list[Pod]:
        """Its pods that nobody has deleted."""
        return [pod for pod in self.pods if pod.deployment == deployment and not pod.is_deleted and not pod.gone.is_set()]

    def ready(self, deployment: str) -> int:
        return sum(pod.is_ready for pod in self.of(deployment))

    def names(self) -> list[str]:
        return [deployment["metadata"]["name"] for deployment in self.manifests.all("Deployment")]

    # --- the Deployment controller

    def strategy(self, deployment: str) -> tuple[int, int, int]:
        """Wanted pods, how many more there may be, and how many may be missing."""
        specification = self.manifests.one("Deployment", deployment)["spec"]
        wanted = specification.get("replicas", self.least_scaled(deployment))
        rolling = specification.get("strategy", {}).get("rollingUpdate", {})
        surge = share(rolling.get("maxSurge", "25%"), wanted, up=True)
        missing = share(rolling.get("maxUnavailable", "25%"), wanted, up=False)
        return wanted, surge, missing or int(surge == 0)

    def least_scaled(self, deployment: str) -> int:
        """What an autoscaler keeps where nothing is to do."""
        scalers = [s["spec"] for s in self.manifests.all("HorizontalPodAutoscaler")]
        return next((s.get("minReplicas", 1) for s in scalers if s["scaleTargetRef"]["name"] == deployment), 1)

    def reconcile(self, deployment: str) -> None:
        wanted, surge, missing = self.strategy(deployment)
        revision = template_hash(self.manifests.one("Deployment", deployment))
        pods = self.of(deployment)
        new = [pod for pod in pods if pod.revision == revision]
        old = [pod for pod in pods if pod.revision != revision]
        for _ in range(min(wanted - len(new), wanted + surge - len(pods))):
            self.start(deployment)
        soak = self.manifests.one("Deployment", deployment)["spec"].get("minReadySeconds", 0)
        available = sum(pod.is_ready and time.monotonic() - pod.ready_since >= soak for pod in pods)
        spare = available - (wanted - missing)
        for pod in sorted(old, key=lambda pod: pod.is_ready):
            if not pod.is_ready or spare > 0:
                spare -= pod.is_ready
                self.delete(pod)
        for pod in new[wanted:]:
            self.delete(pod)

    def start(self, deployment: str) -> None:
        pod = Pod(self.manifests, deployment, self.binary, self.work, self.api.kubeconfig)
        self.endpoints.add(pod)
        self.tasks.append(asyncio.create_task(pod.run()))

    def delete(self, pod: Pod) -> None:
        pod.is_deleted = True
        self.tasks.append(asyncio.create_task(pod.delete()))

    async def keep(self) -> None:
        """Never ends."""
        while True:
            for deployment in self.names():
                self.reconcile(deployment)
                count = self.ready(deployment)
                if deployment in self.fewest:
                    self.fewest[deployment] = min(self.fewest[deployment], count)
                    self.most[deployment] = max(self.most[deployment], len(self.of(deployment)))
                elif count == self.strategy(deployment)[0]:
                    self.fewest[deployment] = self.most[deployment] = count
            for task in filter(asyncio.Task.done, self.tasks):
                task.result()
            for pod in self.pods:
                if pod.gone.is_set() and not pod.is_deleted:
                    # A kubelet would start it again; here it is the end, with what it said.
                    said = (pod.folder / "log").read_text()[-600:]
                    raise Failed(f"{pod.name} ended by itself with code {pod.exit_code}:\n{said}")
            await asyncio.sleep(STEP)

    def is_whole(self, deployment: str) -> bool:
        """All pods are of the present revision and ready, and no other one is left, ending ones included."""
        revision = template_hash(self.manifests.one("Deployment", deployment))
        alive = [pod for pod in self.pods if pod.deployment == deployment and not pod.gone.is_set()]
        wanted = self.strategy(deployment)[0]
        return len(alive) == wanted and all(pod.is_ready and not pod.is_deleted and pod.revision == revision for pod in alive)

    async def settled(self, seconds: float = 150) -> None:
        until = time.monotonic() + seconds
        while not all(map(self.is_whole, self.names())):
            if time.monotonic() > until:
                told = [f"{p.name}: ready {p.is_ready}, deleted {p.is_deleted}, {p.faults}" for p in self.pods if not p.gone.is_set()]
                raise Failed("\n".join([f"not settled after {seconds} s:", *told]))
            await asyncio.sleep(STEP)

    # --- a drain

    def has_budget(self, deployment: str) -> bool:
        labels = self.manifests.one("Deployment", deployment)["spec"]["template"]["metadata"]["labels"]
        return any(selects(b["spec"]["selector"]["matchLabels"], labels) for b in self.manifests.all("PodDisruptionBudget"))

    def may_evict(self, pod: Pod) -> bool:
        """As the disruption controller says of the pod's budget."""
        for budget in self.manifests.all("PodDisruptionBudget"):
            selector = budget["spec"]["selector"]["matchLabels"]
            if not selects(selector, pod.labels):
                continue
            covered = {p.deployment for p in self.pods if selects(selector, p.labels)}
            wanted = sum(self.strategy(deployment)[0] for deployment in covered)
            healthy = sum(self.ready(deployment) for deployment in covered)
            rules = budget["spec"]
            if "maxUnavailable" in rules:
                least = wanted - share(rules["maxUnavailable"], wanted, up=True)
            else:
                least = share(rules["minAvailable"], wanted, up=True)
            if healthy - 1 < least:
                return False
        return True

    async def drain(self, pods: list[Pod]) -> int:
        """Evicts as `kubectl drain` does, one after another where the budget allows it; how often it did not."""
        refused = 0
        for pod in pods:
            while not self.may_evict(pod):
                refused += 1
                await asyncio.sleep(EVICTION_PAUSE)
            self.delete(pod)
        return refused
