import asyncio
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import PIL.Image
import pytest
from serving import CAPTION, SCENE, until

import sleuth

# Long enough on its way that something can happen to it.
SLOW = ("--simulated-device", "2000,0.02", "--max-wait", "100")
PATIENT = sleuth.Settings(retry=sleuth.Retry(attempts=40, budget=60))
FOREVER = ("--simulated-device", "1000000,3600", "--max-wait", "86400", "--burst", "86400")


def texts(count):
    return [sleuth.Item(SCENE, f"There are {n} objects in the picture.") for n in range(count)]


def sleuth_threads():
    return {t.name for t in threading.enumerate() if t.name.startswith("sleuth-")}


def test_a_server_that_is_killed_and_comes_back_costs_no_item(serve):
    slower = ("--simulated-device", "500,0.02", "--max-wait", "100")
    first = serve(*slower)
    with sleuth.Client(first.url, settings=PATIENT) as client:
        verdicts = client.score_many(texts(100))
        got = [next(verdicts)]
        first.kill()
        again = serve(*slower, listen=first.address)
        got += verdicts
    assert len(got) == 100
    assert all(v.valid for v in got)
    assert max(v.attempts for v in got) > 1
    assert [v.tokens.response for v in got] == [i.response.encode() for i in texts(100)]
    # The image was put again, as the new server did not know it.
    assert again.metric("sleuth_images") == 1


def test_a_cut_connection_is_resumed_and_nothing_is_scored_twice(serve):
    server = serve(*SLOW)
    with sleuth.Client(server.url) as client:
        got = []
        for n, verdict in enumerate(client.score_many(texts(200))):
            got.append(verdict)
            if n in (10, 60, 120):
                client._session.cut()
    assert all(v.valid for v in got)
    assert max(v.attempts for v in got) > 1
    assert server.computed() == 200


def test_a_server_that_is_gone_is_told_in_bounded_time(serve):
    server = serve()
    with sleuth.Client(server.url) as client:
        assert client.score(SCENE, CAPTION).valid
        assert client.healthy()
        server.kill()
        began = time.monotonic()
        with pytest.raises(sleuth.UnavailableError, match=server.address):
            client.score(SCENE, CAPTION)
        with pytest.raises(sleuth.UnavailableError, match=server.address):
            client.score_batch(texts(50))
        with pytest.raises(ConnectionError):
            client.get_model()
        assert not client.healthy()
        assert time.monotonic() - began < 30


def test_a_frozen_server_is_left_at_the_deadline(serve):
    server = serve()
    with sleuth.Client(server.url) as client:
        assert client.score(SCENE, CAPTION).valid
        server.freeze()
        began = time.monotonic()
        with pytest.raises(sleuth.DeadlineError, match=r"no verdict within 0\.5 s"):
            client.score(SCENE, CAPTION, timeout=0.5)
        assert time.monotonic() - began < 10
        server.thaw()
        assert client.score(SCENE, CAPTION).valid


def test_the_server_keeps_deadlines_itself(serve):
    server = serve(*FOREVER)
    with sleuth.Client(server.url) as client:
        verdict = client.score(SCENE, CAPTION, timeout=0.3)
    assert verdict.reason == "deadline_passed"
    assert verdict.refusal.error_class == "deadline"


def test_a_full_server_is_asked_again_when_it_says(serve):
    server = serve("--simulated-device", "2000,0.05", "--max-wait", "0.2", "--burst", "0")
    settings = sleuth.Settings(retry=sleuth.Retry(attempts=60, budget=60))
    with sleuth.Client(server.url, settings=settings) as client:
        verdicts = client.score_batch(texts(60))
    assert all(v.valid for v in verdicts)
    assert max(v.attempts for v in verdicts) > 1
    assert server.metric("sleuth_refusals_total") > 0
    assert server.computed() == 60
    impatient = sleuth.Settings(retry=sleuth.Retry(attempts=1))
    with sleuth.Client(server.url, settings=impatient) as client:
        classes = {v.refusal.error_class for v in client.score_batch(texts(60)) if not v.valid}
    assert classes == {"overload"}


def test_a_router_hides_that_a_replica_dies(serve):
    replicas = [serve(*SLOW) for _ in range(2)]
    urls = ",".join(replica.url for replica in replicas)
    router = serve("--replicas", urls, command="route")
    items = [
        sleuth.Item(
            PIL.Image.new("RGB", (32, 32), (40 * image, 0, 0)),
            f"There are {n} objects in the picture.",
            group=sleuth.Group(f"g{image}", size=20),
        )
        for image in range(6)
        for n in range(20)
    ]
    with sleuth.Client(router.url, settings=PATIENT) as client:
        verdicts = client.score_many(items)
        got = [next(verdicts)]
        replicas[0].kill()
        got += verdicts
    assert len(got) == 120
    assert all(v.valid for v in got)
    for image in range(6):
        assert len({v.version for v in got[image * 20 : image * 20 + 20]}) == 1


def test_a_server_that_drains_hands_over(serve):
    first = serve(*SLOW)
    with sleuth.Client(first.url, settings=PATIENT) as client:
        verdicts = client.score_many(texts(100))
        got = [next(verdicts) for _ in range(5)]
        first.process.terminate()
        first.process.wait(30)
        serve(*SLOW, listen=first.address)
        got += verdicts
    assert len(got) == 100
    assert all(v.valid for v in got)


def test_leaving_the_loop_gives_the_rest_up(serve):
    server = serve("--simulated-device", "1000,0.2", "--max-wait", "100")
    with sleuth.Client(server.url) as client:
        for _ in client.score_many(texts(200)):
            break
        until(lambda: server.metric("sleuth_items_in_flight") == 0)
        assert server.computed() < 200


def test_closing_ends_threads_and_what_waits(serve):
    server = serve(*FOREVER)
    before = sleuth_threads()
    client = sleuth.Client(server.url)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(client.score, SCENE, CAPTION, timeout=60)
        until(lambda: server.metric("sleuth_items_in_flight") == 1)
        assert sleuth_threads() > before
        client.close()
        with pytest.raises(sleuth.ClosedError, match="closed before the verdict"):
            waiting.result(10)
    assert sleuth_threads() == before
    with pytest.raises(sleuth.ClosedError):
        client.score(SCENE, CAPTION)
    client.close()


def test_a_client_that_is_dropped_is_closed(server):
    before = sleuth_threads()
    client = sleuth.Client(server.url)
    assert client.score(SCENE, CAPTION, timeout=20).valid
    assert sleuth_threads() > before
    del client
    assert sleuth_threads() == before
    final = sleuth.Client(server.url).correct(SCENE, CAPTION, corrector="guidance").final()
    assert final.verdict.valid
    with sleuth.Client(server.url).open(SCENE) as item:
        item.append(CAPTION)
        assert item.close().valid
    del item
    assert sleuth_threads() == before


def test_many_threads_share_a_client(client):
    with ThreadPoolExecutor(16) as pool:
        verdicts = list(pool.map(lambda item: client.score(item.image, item.response), texts(200)))
    assert all(v.valid for v in verdicts)
    assert [v.tokens.response for v in verdicts] == [i.response.encode() for i in texts(200)]


def test_a_client_lives_on_in_a_forked_process(client):
    reward = client.score(SCENE, CAPTION).reward
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, repr(client.score(SCENE, CAPTION, timeout=20).reward).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as told:
        assert told.read() == repr(reward)
    assert os.waitpid(child, 0)[1] == 0
    assert client.score(SCENE, CAPTION).reward == reward


def test_a_client_travels_to_another_process(client):
    again = pickle.loads(pickle.dumps(client))
    assert again.score(SCENE, CAPTION).reward == client.score(SCENE, CAPTION).reward
    other = pickle.loads(pickle.dumps(sleuth.aio.Client(client._session.address.url)))
    verdict = asyncio.run(other.score(SCENE, CAPTION))
    assert verdict.reward == client.score(SCENE, CAPTION).reward


INTERRUPTED = """
import sys, threading
import sleuth
client = sleuth.Client(sys.argv[1])
print("ready", flush=True)
try:
    if sys.argv[3] == "batch":
        client.score_batch({"image": sys.argv[2], "response": f"There are {n}."} for n in range(50))
    else:
        client.score(sys.argv[2], "There is a heart.")
except KeyboardInterrupt:
    client.close()
    print([t.name for t in threading.enumerate() if t.name.startswith("sleuth-")])
    raise
"""


@pytest.mark.parametrize("what", ["batch", "one"])
def test_ctrl_c_ends_the_process_and_its_items(serve, what):
    server = serve(*FOREVER)
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, server.url, str(SCENE), what],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout.readline() == "ready\n"
    wanted = 50 if what == "batch" else 1
    until(lambda: server.metric("sleuth_items_in_flight") == wanted)
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert time.monotonic() - began < 10
    assert out == "[]\n"
    assert "KeyboardInterrupt" in err
    assert child.returncode == -signal.SIGINT
    until(lambda: server.metric("sleuth_items_in_flight") == 0)


def test_a_process_that_never_closes_its_client_ends_all_the_same(server):
    script = "import sys, sleuth; print(sleuth.Client(sys.argv[1]).score(sys.argv[2], 'A heart.'))"
    ended = subprocess.run(
        [sys.executable, "-c", script, server.url, str(SCENE)],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 0
    assert ended.stderr == ""
    assert "reward=" in ended.stdout
