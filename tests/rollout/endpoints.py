"""EndpointSlices as the API server lists and watches them, and new connections as kube-proxy hands them out.

Both learn of a pod's change `lag` seconds after it happened, as nodes do.
"""

from __future__ import annotations

import asyncio
import json
import random
from urllib.parse import parse_qs, urlsplit

from manifests import Manifests, selects
from pod import Pod


class Endpoints:
    """What is known of each Service's pods, by Service."""

    def __init__(self, manifests: Manifests, lag: float) -> None:
        self.manifests = manifests
        self.lag = lag
        self.pods: list[Pod] = []
        self.version = 1
        self.published = {service["metadata"]["name"]: [] for service in manifests.all("Service")}
        self.history: list[tuple[int, str]] = []
        self.news = asyncio.Condition()
        self.tasks: set[asyncio.Task] = set()

    def add(self, pod: Pod) -> None:
        self.pods.append(pod)
        pod.changed = self.changed

    def changed(self) -> None:
        now = {name: self.seen(name) for name in self.published}
        task = asyncio.create_task(self.publish(now))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def seen(self, name: str) -> list[tuple[str, str, int, bool, bool, bool]]:
        service = self.manifests.one("Service", name)["spec"]
        target = service["ports"][0]["targetPort"]
        chosen = [pod for pod in self.pods if selects(service["selector"], pod.labels) and pod.is_started and not pod.gone.is_set()]
        port = {pod: target if isinstance(target, int) else pod.port(target) for pod in chosen}
        return [(p.name, p.address, port[p], p.is_ready and not p.is_deleted, p.is_ready, p.is_deleted) for p in chosen]

    async def publish(self, seen: dict) -> None:
        await asyncio.sleep(self.lag)
        async with self.news:
            for name, pods in seen.items():
                if pods != self.published[name]:
                    self.version += 1
                    self.published[name] = pods
                    self.history.append((self.version, name))
            self.news.notify_all()

    def slice(self, name: str) -> dict:
        service = self.manifests.one("Service", name)["spec"]
        port = service["ports"][0]
        pods = self.published[name]
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {
                "name": f"{name}-1",
                "namespace": self.manifests.namespace,
                "resourceVersion": str(self.version),
                "labels": {"kubernetes.io/service-name": name},
            },
            "ports": [{"name": port["name"], "port": pods[0][2] if pods else port["port"], "protocol": "TCP"}],
            "endpoints": [
                {
                    "addresses": [address],
                    "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
                    "targetRef": {"kind": "Pod", "name": pod, "namespace": self.manifests.namespace},
                }
                for pod, address, _, ready, serving, terminating in pods
            ],
        }


class ApiServer:
    """Lists and watches EndpointSlices for whom the manifests' Roles allow it."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.requests = 0
        self.forbidden = 0

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def kubeconfig(self, account: str) -> str:
        named = lambda key, value: [{"name": "x", key: value}]
        return json.dumps({
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "x",
            "clusters": named("cluster", {"server": f"http://127.0.0.1:{self.port}"}),
            "users": named("user", {"token": account}),
            "contexts": named("context", {"cluster": "x", "user": "x"}),
        })

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                await self.answer(head.decode(), writer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def answer(self, head: str, writer: asyncio.StreamWriter) -> None:
        self.requests += 1
        lines = head.split("\r\n")
        address = urlsplit(lines[0].split()[1])
        asked = {key: values[0] for key, values in parse_qs(address.query).items()}
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        account = headers.get("authorization", "").removeprefix("Bearer ")
        watch = asked.get("watch") in ("true", "1")
        manifests = self.endpoints.manifests
        service = asked.get("labelSelector", "").removeprefix("kubernetes.io/service-name=")
        if address.path != f"/apis/discovery.k8s.io/v1/namespaces/{manifests.namespace}/endpointslices" or service not in self.endpoints.published:
            await whole(writer, 404, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": f"{lines[0]}", "code": 404})
        elif not manifests.may(account, "watch" if watch else "list", "endpointslices"):
            self.forbidden += 1
            await whole(writer, 403, {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": f"{account} may not", "code": 403})
        elif watch:
            await self.watch(writer, service, int(asked.get("resourceVersion", "0")), float(asked.get("timeoutSeconds", "300")))
        else:
            metadata = {"resourceVersion": str(self.endpoints.version)}
            items = [self.endpoints.slice(service)]
            await whole(writer, 200, {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSliceList", "metadata": metadata, "items": items})

    async def watch(self, writer: asyncio.StreamWriter, service: str, since: int, seconds: float) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n")
        endpoints = self.endpoints
        try:
            async with asyncio.timeout(seconds):
                while True:
                    async with endpoints.news:
                        news = lambda: any(version > since and name == service for version, name in endpoints.history)
                        await endpoints.news.wait_for(news)
                        since = endpoints.version
                        event = json.dumps({"type": "MODIFIED", "object": endpoints.slice(service)}) + "\n"
                    writer.write(f"{len(event.encode()):x}\r\n{event}\r\n".encode())
                    await writer.drain()
        except TimeoutError:
            writer.write(b"0\r\n\r\n")
            await writer.drain()


async def whole(writer: asyncio.StreamWriter, code: int, body: dict) -> None:
    text = json.dumps(body).encode()
    writer.write(f"HTTP/1.1 {code} x\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n".encode() + text)
    await writer.drain()


class Balancer:
    """A Service's address. New connections go to an endpoint that is ready; those that are open stay where they are."""

    def __init__(self, endpoints: Endpoints, service: str, seed: int) -> None:
        self.endpoints = endpoints
        self.service = service
        self.random = random.Random(seed)
        self.taken = 0
        self.refused: list[str] = []
        # The event loop alone does not keep a connection's task.
        self.open: set[asyncio.Task] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    def choices(self) -> list[tuple[str, str, int]]:
        pods = self.endpoints.published[self.service]
        ready = [pod[:3] for pod in pods if pod[3]]
        # As kube-proxy does where none is ready.
        return ready or [pod[:3] for pod in pods if pod[4]]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        self.open.add(task)
        task.add_done_callback(self.open.discard)
        choices = self.choices()
        name, address, port = self.random.choice(choices) if choices else ("no endpoint", "", 0)
        try:
            if not choices:
                raise ConnectionRefusedError
            inward, outward = await asyncio.open_connection(address, port)
        except OSError:
            self.refused.append(name)
            writer.transport.abort()
            return
        self.taken += 1
        await asyncio.gather(pipe(reader, outward), pipe(inward, writer))
        outward.close()
        writer.close()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (OSError, RuntimeError):
        writer.transport.abort()
    except asyncio.CancelledError:
        writer.transport.abort()
