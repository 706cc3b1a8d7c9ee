"""Each profile is rendered once; the count at the end is one plain line."""

import functools

import pytest

import rendering
from profiles import LONG, PROFILES


@functools.cache
def rendered(profile, release="sleuth"):
    return rendering.render(PROFILES[profile], release=release)


@pytest.fixture(params=PROFILES)
def profile(request):
    return request.param


@pytest.fixture(params=["sleuth", LONG], ids=["short", "long"])
def rendering_of(request, profile):
    return rendered(profile, request.param)


def pytest_unconfigure(config):
    reporter = config.pluginmanager.get_plugin("terminalreporter")

    def count(*kinds):
        return sum(len(reporter.stats.get(kind, [])) for kind in kinds)

    print(f"{count('passed')} passed, {count('failed', 'error')} failed, {count('skipped')} skipped")
