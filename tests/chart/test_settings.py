"""Rendered settings are what the server takes: `sleuth config check`, and servers that run with them."""

import base64
import contextlib
import json
import os
import signal
import socket
import ssl
import subprocess
import time
import urllib.error
import urllib.request

import pytest

import certificates
import rendering
from conftest import rendered
from objects import deployments, named, settings, workloads
from profiles import PROFILES, SECURED

SLEUTH = os.environ["SLEUTH"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return certificates.write_all(tmp_path_factory.mktemp("run"), SLEUTH, ["localhost", "replicas.internal", "rewards.example"])


def text_of(objects, workload):
    volume = next(v for v in workload.spec["volumes"] if v["name"] == "config")
    return named(objects, "ConfigMap")[volume["configMap"]["name"]]["data"]["sleuth.toml"]


def check(text, folder):
    path = folder / "sleuth.toml"
    path.write_text(text)
    done = subprocess.run([SLEUTH, "config", "check", path], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout + done.stderr


def test_settings_are_valid(profile, files, tmp_path):
    objects = rendered(profile).objects
    for w in deployments(objects):
        code, said = check(text_of(objects, w).replace('"/run/sleuth/', f'"{files}/'), tmp_path)
        assert code == 0, f"{w.name}: {said}"


def test_a_setting_that_nobody_knows_is_told_by_the_server_alone(tmp_path):
    values = {"settings": {"engine": {"worker": 2}}}
    objects = rendering.render(values).objects
    code, said = check(text_of(objects, deployments(objects)[0]), tmp_path)
    assert code != 0 and "engine.worker" in said


def test_values_become_settings():
    objects = rendered("settings").objects
    replica = settings(objects, next(w for w in deployments(objects) if w.component == "replica"))
    router = settings(objects, next(w for w in deployments(objects) if w.component == "router"))
    # A pool's own win over the shared; whole numbers stay whole, however large; null takes away.
    assert replica["engine"] == {"prefix_cache_mib": 2048, "kv": "f16", "workers": 2}
    assert router["engine"]["prefix_cache_mib"] == 16777216
    assert isinstance(router["engine"]["prefix_cache_mib"], int)
    assert replica["admission"] == {"max_wait_seconds": 0.5, "burst_seconds": 0, "tenant_share": 2}
    assert replica["log"] == {"filter": "info,sleuth_engine=debug"}
    assert router["log"] == {"filter": "debug"}
    assert router["router"]["max_attempts"] == 6
    assert replica["traces"]["sample"] == 0.05


def test_replicas_trust_the_tenant_header_only_behind_a_router_without_credentials():
    def header(profile):
        objects = rendered(profile).objects
        return settings(objects, next(w for w in deployments(objects) if w.component == "replica"))["server"].get("tenant_header")

    assert header("defaults") == "sleuth-tenant"
    assert header("TLS by secrets") == "sleuth-tenant"
    for profile in ["no router", "no router, secured", "tokens and certificates", "tokens in the clear"]:
        assert header(profile) is None


# --- Servers that run with what was rendered, on loopback.


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A pod's process: the rendered command and settings, addresses and files replaced."""

    def __init__(self, objects, component, files, folder, replica=None):
        w = next(w for w in deployments(objects) if w.component == component)
        self.port, self.admin, self.http = free_port(), free_port(), free_port()
        text = text_of(objects, w).replace('"/run/sleuth/', f'"{files}/')
        for rendered_port, own in [(50051, self.port), (50052, self.admin), (50053, self.http)]:
            text = text.replace(f"0.0.0.0:{rendered_port}", f"127.0.0.1:{own}")
        if replica:
            told = settings(objects, w)["router"]["replicas"]
            scheme = "https" if "+https" in told else "http"
            text = text.replace(told, f"{scheme}://127.0.0.1:{replica.port}")
        config = folder / f"{component}.toml"
        config.write_text(text)
        args = [str(config) if a == "/etc/sleuth/sleuth.toml" else a for a in w.containers[0]["args"]]
        self.log = open(folder / f"{component}.log", "w+")
        self.process = subprocess.Popen([SLEUTH, *args], stdout=self.log, stderr=self.log)

    def wait(self, path="/readyz"):
        for _ in range(300):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=2) as answer:
                    if answer.status == 200:
                        return self
            except (urllib.error.URLError, OSError):
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.log.seek(0)
        pytest.fail(f"not ready: {self.log.read()[-2000:]}")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.code = self.process.wait(20)
        finally:
            self.process.kill()
            self.log.close()


def run_test_pod(objects, files, port):
    """The container of `helm test`, its target and files replaced."""
    pod = next(w for w in workloads(objects) if not w.long_lived)
    args = [a.replace("/run/sleuth/", f"{files}/") for a in pod.containers[0]["args"]]
    target = args.index("--target") + 1
    scheme = args[target].partition("://")[0]
    args[target] = f"{scheme}://localhost:{port}"
    return subprocess.run([SLEUTH, *args], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("profile", ["defaults", "tokens in the clear", "tokens and certificates"])
def test_what_is_rendered_runs_and_passes_helm_test(profile, files, tmp_path):
    objects = rendered(profile).objects
    with Server(objects, "replica", files, tmp_path) as replica:
        replica.wait()
        with Server(objects, "router", files, tmp_path, replica.wait()) as router:
            router.wait()
            done = run_test_pod(objects, files, router.port)
            assert done.returncode == 0, done.stdout + done.stderr
            valid = next(line.split()[-1] for line in done.stdout.splitlines() if line.startswith("valid "))
            assert int(valid) > 0
    assert (router.code, replica.code) == (0, 0)


class Trainer:
    """What asks for rewards over HTTP, as OpenRLHF does: with certificates and a token where the server has them."""

    def __init__(self, port, files=None):
        self.url, self.context, self.headers = f"http://localhost:{port}/get_reward", None, {"content-type": "application/json"}
        if files:
            self.url = self.url.replace("http:", "https:")
            self.context = ssl.create_default_context(cafile=files / "ca" / "ca.crt")
            self.context.load_cert_chain(files / "client-tls" / "tls.crt", files / "client-tls" / "tls.key")
            self.headers["authorization"] = f"Bearer {(files / 'token' / 'token').read_text()}"

    def rewards(self, **without):
        image = base64.b64encode((rendering.ROOT / "docs" / "scene.png").read_bytes()).decode()
        body = {"query": ["The heart is red."] * 2, "images": [image, None]}
        headers = {k: v for k, v in self.headers.items() if k not in without}
        request = urllib.request.Request(self.url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request, timeout=60, context=self.context) as answer:
            return json.load(answer)["rewards"]


@pytest.mark.parametrize("profile", ["HTTP", "HTTP without a router", "HTTP, secured"])
def test_trainers_get_rewards_over_http_from_whom_callers_go_to(profile, files, tmp_path):
    objects = rendered(profile).objects
    secured = profile == "HTTP, secured"
    with contextlib.ExitStack() as servers:
        replica = called = servers.enter_context(Server(objects, "replica", files, tmp_path)).wait()
        if profile != "HTTP without a router":
            called = servers.enter_context(Server(objects, "router", files, tmp_path, replica)).wait()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", replica.http))
        trainer = Trainer(called.http, files if secured else None)
        # The second sample has no image.
        scored, invalid = trainer.rewards()
        assert 0 < scored < 1 and invalid is None
        if secured:
            with pytest.raises(urllib.error.HTTPError, match="401"):
                trainer.rewards(authorization=None)


def test_helm_test_fails_where_nobody_listens(files):
    done = run_test_pod(rendered("defaults").objects, files, free_port())
    assert done.returncode != 0


def test_helm_test_fails_with_a_token_that_nobody_knows(files, tmp_path):
    values = {"router": {"enabled": False}, "auth": {"clients": SECURED["auth"]["clients"]}, "test": {"token": {"secretName": "t"}}}
    objects = rendering.render(values).objects
    with Server(objects, "replica", files, tmp_path) as replica:
        replica.wait()
        (tmp_path / "token").mkdir()
        (tmp_path / "token" / "token").write_text("nobody")
        assert run_test_pod(objects, files, replica.port).returncode == 0
        assert run_test_pod(objects, tmp_path, replica.port).returncode != 0


def test_profiles_cover_what_is_derived():
    """Every key that the chart derives appears in some profile's settings."""
    seen = {f"{s}.{k}" for p in PROFILES for w in deployments(rendered(p).objects) for s, keys in settings(rendered(p).objects, w).items() for k in keys}
    assert {
        "server.listen", "server.insecure", "server.drain_lag_seconds", "server.drain_deadline_seconds", "server.tenant_header",
        "admin.listen", "admin.insecure", "tls.certificate", "tls.key", "tls.client_ca", "auth.credentials", "model.folder",
        "router.replicas", "router.replica_ca", "router.replica_server_name", "router.replica_certificate", "router.replica_key",
        "router.replica_token_file", "http.listen", "http.insecure",
    } <= seen
