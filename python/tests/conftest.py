import pytest
from serving import BINARY, Server

import sleuth


def pytest_configure(config):
    if not BINARY.is_file():
        pytest.exit(f"no server at {BINARY}: build it, or name it in SLEUTH", returncode=2)


@pytest.fixture(scope="session")
def server():
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def client(server):
    with sleuth.Client(server.url) as client:
        yield client


@pytest.fixture
def serve():
    """Starts servers that end with the test."""
    started = []

    def start(*arguments, **options):
        started.append(Server(*arguments, **options))
        return started[-1]

    yield start
    for server in started:
        server.stop()
