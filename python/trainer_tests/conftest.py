import os
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path[:0] = [str(HERE.parent / "examples"), str(HERE.parent / "tests")]

import pytest  # noqa: E402
from serving import BINARY, Server  # noqa: E402

import sleuth  # noqa: E402


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with sleuth.Client(server.url) as client:
        yield client


@pytest.fixture(scope="session")
def rows(tmp_path_factory):
    import tiny_policy

    return tiny_policy.draw_scenes(BINARY, tmp_path_factory.mktemp("scenes"), 8)


@pytest.fixture(scope="session")
def tokens(rows):
    import tiny_policy

    return tiny_policy.tokenizer(rows)
