"""A pod: a process on an address of its own, and what the kubelet does with it."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from pathlib import Path

from manifests import Manifests, printed, template_hash

ADDRESSES = itertools.count(1)
NUMBERS = itertools.count(1)


class Pod:
    def __init__(self, manifests: Manifests, deployment: str, binary: Path, work: Path, kubeconfig) -> None:
        told = manifests.one("Deployment", deployment)
        self.template = told["spec"]["template"]
        self.revision = template_hash(told)
        self.deployment = deployment
        self.name = f"{deployment}-{self.revision}-{next(NUMBERS)}"
        self.address = f"127.0.1.{next(ADDRESSES)}"
        self.specification = self.template["spec"]
        self.container = self.specification["containers"][0]
        self.labels = self.template["metadata"]["labels"]
        self.folder = work / self.name
        self.folder.mkdir()
        (self.folder / "sleuth.toml").write_text(printed(manifests.settings(deployment)).replace("0.0.0.0", self.address))
        self.command = [str(binary), *self.arguments()]
        self.environment = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
        self.environment |= {entry["name"]: entry["value"] for entry in self.container.get("env", [])}
        if self.specification.get("automountServiceAccountToken"):
            # A real pod finds the API server by itself.
            path = self.folder / "kubeconfig"
            path.write_text(kubeconfig(self.specification["serviceAccountName"]))
            self.environment["SLEUTH_ROUTER_KUBECONFIG"] = str(path)
        self.is_started = self.is_ready = self.is_deleted = False
        self.ready_since = self.deleted_at = 0.0
        self.exit_code: int | None = None
        self.seconds_to_end = 0.0
        self.is_killed = False
        self.faults: list[str] = []
        self.gone = asyncio.Event()
        self.changed = lambda: None

    def arguments(self) -> list[str]:
        mounts = {m["mountPath"]: m["name"] for m in self.container.get("volumeMounts", [])}
        volumes = {v["name"]: v for v in self.specification.get("volumes", [])}
        strange = [name for name, v in volumes.items() if not {"configMap", "emptyDir"} & v.keys()]
        if strange:
            raise SystemExit(f"{self.deployment}: volumes {strange} are neither configMap nor emptyDir, which alone are played")
        config = next(path for path, name in mounts.items() if "configMap" in volumes[name])
        return [word.replace(config, str(self.folder)) for word in self.container["args"]]

    def port(self, name: str) -> int:
        return next(p["containerPort"] for p in self.container["ports"] if p["name"] == name)

    @property
    def grace(self) -> float:
        return self.specification["terminationGracePeriodSeconds"]

    # --- the process

    async def run(self) -> None:
        with open(self.folder / "log", "wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, cwd=self.folder, env=self.environment, stdout=log, stderr=asyncio.subprocess.STDOUT
            )
        probes = asyncio.create_task(self.probe())
        self.exit_code = await self.process.wait()
        probes.cancel()
        self.seconds_to_end = time.monotonic() - self.deleted_at
        if not self.is_deleted:
            self.faults.append(f"ended by itself with code {self.exit_code}")
        self.is_ready = False
        self.gone.set()
        self.changed()

    async def delete(self) -> None:
        """As an eviction or a smaller ReplicaSet does: out of the endpoints, preStop, SIGTERM, SIGKILL."""
        self.is_deleted = True
        self.deleted_at = time.monotonic()
        self.changed()
        sleep = self.container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        await asyncio.sleep(min(sleep, self.grace))
        self.signal(signal.SIGTERM)
        left = self.deleted_at + self.grace - time.monotonic()
        try:
            await asyncio.wait_for(self.gone.wait(), max(left, 0))
        except TimeoutError:
            self.is_killed = True
            self.signal(signal.SIGKILL)
            await self.gone.wait()

    def signal(self, number: signal.Signals) -> None:
        if not self.gone.is_set():
            os.kill(self.process.pid, number)

    # --- its probes

    async def probe(self) -> None:
        startup = self.container.get("startupProbe")
        if startup and not await self.until(startup, wanted=True):
            self.faults.append("its startup probe gave up")
            self.signal(signal.SIGKILL)
            return
        self.is_started = True
        await asyncio.gather(self.watch_readiness(self.container["readinessProbe"]), self.watch_liveness(self.container["livenessProbe"]))

    async def until(self, probe: dict, wanted: bool) -> bool:
        """Probes until there are as many results in a row as its threshold asks for; whether they are those wanted."""
        rows = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        run, last = 0, None
        while True:
            result = await self.answers(probe)
            run, last = (run + 1 if result == last else 1), result
            if run >= rows[result] and (result == wanted or wanted):
                return result
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def watch_readiness(self, probe: dict) -> None:
        rows = {True: probe.get("successThreshold", 1), False: probe.get("failureThreshold", 3)}
        run, last = 0, None
        while True:
            result = await self.answers(probe)
            run, last = (run + 1 if result == last else 1), result
            if run >= rows[result] and result != self.is_ready:
                self.is_ready, self.ready_since = result, time.monotonic()
                if not result and not self.is_deleted:
                    self.faults.append("became unready though nothing ended it")
                self.changed()
            await asyncio.sleep(probe.get("periodSeconds", 10))

    async def watch_liveness(self, probe: dict) -> None:
        await self.until(probe, wanted=False)
        if not self.is_deleted:
            self.faults.append("its liveness probe failed")
            self.signal(signal.SIGKILL)

    async def answers(self, probe: dict) -> bool:
        get = probe["httpGet"]
        port = get["port"] if isinstance(get["port"], int) else self.port(get["port"])
        try:
            async with asyncio.timeout(probe.get("timeoutSeconds", 1)):
                reader, writer = await asyncio.open_connection(self.address, port)
                writer.write(f"GET {get['path']} HTTP/1.1\r\nHost: {self.address}:{port}\r\nConnection: close\r\n\r\n".encode())
                status = (await reader.readline()).split()
                writer.close()
                return len(status) > 1 and 200 <= int(status[1]) < 400
        except (OSError, TimeoutError, ValueError):
            return False
