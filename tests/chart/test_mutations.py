"""The rules notice: each is broken in some way and must say so."""

import copy

import pytest

import invariants
from conftest import rendered
from mutations import MUTATIONS
from profiles import PROFILES
from references import external


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_rendering_is_noticed(mutation):
    profile, rule, change = MUTATIONS[mutation]
    objects = copy.deepcopy(rendered(profile).objects)
    change(objects)
    noticed = {fault.partition(":")[0] for fault in invariants.faults(objects, external(PROFILES[profile]))}
    assert rule in noticed


def test_every_rule_is_broken_once():
    assert {rule.__name__ for rule in invariants.RULES} == {rule for _, rule, _ in MUTATIONS.values()}
