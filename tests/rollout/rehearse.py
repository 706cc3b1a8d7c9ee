"""Rolling updates, a rollback and a drain, rehearsed with real processes that follow rendered manifests.

Every pod is `sleuth` on a loopback address of its own, with the manifests' arguments and settings; a Deployment controller, a kubelet,
an API server that lists and watches EndpointSlices, and a Service's balancing of new connections are played as their documentation
says. Deletions and readiness reach endpoints and balancer some seconds late, as on nodes. Meanwhile `sleuth bench` sends groups
through the routers' Service and accounts for every item.

Not played: images, other volumes than ConfigMaps and emptyDirs, NetworkPolicies, resources, autoscaling, TLS.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shlex
import time
from dataclasses import dataclass, field
from pathlib import Path

from controller import Cluster, Failed
from endpoints import ApiServer, Balancer, Endpoints
from load import Callers, Load, broken
from manifests import Manifests

# The wait that is simulated: tokens per second, and seconds per batch.
DEVICE = "4000,0.03"


@dataclass
class Outcome:
    """What a rehearsal showed."""

    faults: list[str] = field(default_factory=list)
    report: dict = field(default_factory=dict)
    callers: tuple[int, int] = (0, 0)
    refused: int = 0
    pods: int = 0
    slowest_end: float = 0.0


class Stage:
    """A cluster under load."""

    def __init__(self, manifests: Manifests, arguments: argparse.Namespace, name: str, lag: float) -> None:
        self.arguments = arguments
        self.manifests = manifests
        self.began = time.monotonic()
        self.work = arguments.work / name
        self.work.mkdir()
        self.endpoints = Endpoints(manifests, lag)
        self.api = ApiServer(self.endpoints)
        self.cluster = Cluster(manifests, arguments.binary, self.work, self.endpoints, self.api)
        self.router = manifests.routers()
        self.balancer = Balancer(self.endpoints, self.client_service(), arguments.seed)

    def client_service(self) -> str:
        labels = self.manifests.one("Deployment", self.router)["spec"]["template"]["metadata"]["labels"]
        services = self.manifests.all("Service")
        found = [s["metadata"]["name"] for s in services if s["spec"].get("clusterIP") != "None" and s["spec"]["selector"].items() <= labels.items()]
        if len(found) != 1:
            raise SystemExit(f"{len(found)} Services select the routers' pods; one is needed")
        return found[0]

    def say(self, what: str) -> None:
        print(f"  {time.monotonic() - self.began:5.1f} s  {what}", flush=True)

    async def play(self, scenes) -> Outcome:
        outcome = Outcome()
        await self.api.start()
        await self.balancer.start()
        keeper = asyncio.create_task(self.cluster.keep())
        try:
            await self.guarded(keeper, self.cluster.settled())
            # Until the routers have seen their replicas.
            await asyncio.sleep(self.endpoints.lag + 1)
            self.say("all pods are ready; load begins")
            told = self.arguments
            load = Load(told.binary, self.balancer.port, told.rate, 4, told.retries, told.seed, shlex.split(told.bench))
            callers = Callers(self.balancer.port)
            await load.start()
            calling = asyncio.create_task(callers.run())
            await asyncio.sleep(2)
            await self.guarded(keeper, scenes(self, outcome))
            await asyncio.sleep(1)
            calling.cancel()
            outcome.report = await load.stop()
            outcome.callers = callers.served, callers.refused
            outcome.refused = len(self.balancer.refused)
        finally:
            keeper.cancel()
            await self.end()
        self.account(outcome)
        return outcome

    async def guarded(self, keeper: asyncio.Task, work) -> None:
        """Awaits work, or the controller's failure."""
        task = asyncio.ensure_future(work)
        await asyncio.wait([keeper, task], return_when=asyncio.FIRST_COMPLETED)
        if keeper.done():
            keeper.result()
        await task

    async def end(self) -> None:
        for pod in self.cluster.pods:
            if not pod.gone.is_set() and hasattr(pod, "process"):
                pod.is_deleted = True
                with contextlib.suppress(ProcessLookupError):
                    pod.process.kill()
        ended = {pod for pod in self.cluster.pods if not pod.gone.is_set()}
        for pod in ended:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(pod.gone.wait(), 10)
            # Ended by the rehearsal's end and by nothing that is judged.
            pod.exit_code = None

    def account(self, outcome: Outcome) -> None:
        for pod in self.cluster.pods:
            outcome.faults += [f"{pod.name}: {fault}" for fault in pod.faults]
            if pod.is_killed:
                outcome.faults.append(f"{pod.name}: SIGKILL after {pod.grace} s of grace")
            if pod.exit_code is None:
                continue
            outcome.pods += 1
            outcome.slowest_end = max(outcome.slowest_end, pod.seconds_to_end)
            if pod.exit_code:
                outcome.faults.append(f"{pod.name}: ended with code {pod.exit_code}, {pod.seconds_to_end:.1f} s after its deletion")
        for deployment, fewest in self.cluster.fewest.items():
            wanted, surge, missing = self.cluster.strategy(deployment)
            if fewest < wanted - self.allowed(deployment, missing):
                outcome.faults.append(f"{deployment}: {fewest} ready of {wanted}")
            if self.cluster.most[deployment] > wanted + surge:
                outcome.faults.append(f"{deployment}: {self.cluster.most[deployment]} pods where {wanted + surge} may be")

    def allowed(self, deployment: str, missing: int) -> int:
        """How many pods might be missing: by the strategy, or by an eviction."""
        return max(missing, 1) if any(pod.deployment == deployment for pod in getattr(self, "evicted", [])) else missing

    # --- scenes

    async def roll(self, what: str, deployments: list[str], changes: list[tuple[str, str, object]]) -> None:
        before = len(self.cluster.pods)
        for deployment in deployments:
            for change in changes:
                self.manifests.set(deployment, *change)
        await self.cluster.settled()
        self.say(f"{what}: {len(self.cluster.pods) - before} pods replaced, none left of the old revision")


async def everything(stage: Stage, outcome: Outcome) -> None:
    replicas, router = stage.manifests.replicas(), stage.router
    await stage.roll("replicas roll to a new revision", replicas, [("limits", "max_batch_items", 255)])
    await stage.roll("routers roll to a new revision", [router], [("limits", "max_batch_items", 255)])
    await stage.roll("both roll back at once", [*replicas, router], [("limits", "max_batch_items", 256)])
    several = [name for name in [*replicas, router] if stage.cluster.strategy(name)[0] > 1]
    outcome.faults += [f"{name}: several pods and no budget" for name in several if not stage.cluster.has_budget(name)]
    stage.evicted = [pod for name in several for pod in stage.cluster.of(name)]
    refused = await stage.cluster.drain(stage.evicted)
    await stage.cluster.settled()
    stage.say(f"a drain evicted {len(stage.evicted)} pods; their budgets put evictions off {refused} times")
    if not refused:
        outcome.faults.append("no budget put an eviction off: the drain had nothing to heed")


async def routers_alone(stage: Stage, outcome: Outcome) -> None:
    await stage.roll("routers roll to a new revision", [stage.router], [("limits", "max_batch_items", 255)])


def prepared(arguments: argparse.Namespace) -> Manifests:
    manifests = Manifests(arguments.manifests)
    for name in manifests.replicas():
        if not arguments.real:
            manifests.set(name, "engine", "simulated_device", DEVICE)
    if arguments.routers:
        manifests.one("Deployment", manifests.routers())["spec"]["replicas"] = arguments.routers
    return manifests


def told(outcome: Outcome) -> str:
    counts = outcome.report["counts"]
    bad = ", ".join(f"{count} {name}" for name, count in broken(outcome.report).items())
    text = f"{counts['valid']} of {counts['sent']} items with rewards, {counts['refused']} attempts refused and sent again, {bad or 'none lost, doubled, zero or mixed'}; "
    text += f"{outcome.callers[0]} new connections served, {outcome.callers[1]} not; "
    return text + f"{outcome.pods} pods ended, the slowest after {outcome.slowest_end:.1f} s"


def reasons(report: dict) -> list[str]:
    """Why attempts were lost or refused, with how many there were."""
    counts = report["counts"]
    refusals = [(f"refused: {reason}", n) for kinds in counts["refusals"].values() for reason, n in kinds.items()]
    return [f"{n} attempts {text}" for text, n in [*((f"lost: {why}", n) for why, n in counts["losses"].items()), *refusals]]


async def rehearse(arguments: argparse.Namespace) -> bool:
    print(f"as rendered, endpoints {arguments.lag} s late", flush=True)
    outcome = await Stage(prepared(arguments), arguments, "rendered", arguments.lag).play(everything)
    print(f"  {told(outcome)}")
    for text in reasons(outcome.report):
        print(f"  {text}")
    for fault in outcome.faults:
        print(f"  fault: {fault}")
    good = not (broken(outcome.report) or outcome.callers[1] or outcome.refused or outcome.faults)

    print(f"control: without preStop, endpoints {arguments.control_lag} s late", flush=True)
    arguments.seed += 1
    manifests = prepared(arguments)
    for deployment in manifests.all("Deployment"):
        del deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"]
    control = await Stage(manifests, arguments, "control", arguments.control_lag).play(routers_alone)
    print(f"  {told(control)}")
    fails = bool(control.callers[1] or broken(control.report))
    print(f"verdict: {'holds' if good else 'FAILS'}; the control {'fails, as it must' if fails else 'holds too: the rehearsal proves NOTHING'}")
    return good and fails


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", type=Path)
    parser.add_argument("manifests", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="a folder for settings and logs")
    parser.add_argument("--lag", type=float, default=2, help="seconds until endpoints and balancer know of a change")
    parser.add_argument("--control-lag", type=float, default=5, help="the same for the control, which has no preStop")
    parser.add_argument("--rate", type=float, default=16, help="items per second")
    parser.add_argument("--retries", type=int, default=8, help="of an item that is refused as retryable, when the server says")
    parser.add_argument("--routers", type=int, help="pods of the router, if not as rendered")
    parser.add_argument("--real", action="store_true", help="compute with the trained model instead of a simulated device")
    parser.add_argument("--bench", default="", help="more arguments for `sleuth bench`")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    try:
        raise SystemExit(0 if asyncio.run(rehearse(parser.parse_args())) else 1)
    except Failed as failed:
        raise SystemExit(f"verdict: FAILS; {failed}") from None


if __name__ == "__main__":
    main()
