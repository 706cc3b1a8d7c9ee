"""What is wrong is refused, with a message that names the value."""

import pytest

import rendering
from profiles import PROFILES
from refusals import OUTSIDE_THE_SCHEMA, WITHOUT_SENSE


def refusal(values):
    with pytest.raises(rendering.Refused) as refused:
        rendering.render(values)
    return str(refused.value)


@pytest.mark.parametrize("case", OUTSIDE_THE_SCHEMA)
def test_values_outside_the_schema_are_refused(case):
    values, words = OUTSIDE_THE_SCHEMA[case]
    said = refusal(values)
    assert "meet the specifications of the schema" in said
    for word in words:
        assert word in said


@pytest.mark.parametrize("case", WITHOUT_SENSE)
def test_values_that_make_no_sense_together_are_refused(case):
    values, words = WITHOUT_SENSE[case]
    said = refusal(values)
    assert "checks.yaml" in said, said
    for word in words:
        assert word in said


def test_what_is_refused_only_behind_a_router_is_taken_without_one():
    values = {"router": {"enabled": False}, "settings": {"server": {"tenant_header": "x-tenant"}}}
    assert rendering.render(values).of("Deployment")


def test_ports_of_http_are_free_where_there_is_none():
    values = {"ports": {"http": 50051}, "service": {"httpPort": 50051}}
    assert rendering.render(values).of("Deployment") == rendering.render({}).of("Deployment")


def test_a_release_whose_name_begins_with_a_digit_is_told_what_to_do():
    with pytest.raises(rendering.Refused, match="fullnameOverride"):
        rendering.render({}, release="2nd")


def test_notes_tell_what_is_open():
    notes = rendering.render({}).notes
    assert "whoever reaches the port may score" in notes and "in the clear" in notes and "must enforce NetworkPolicies" in notes
    notes = rendering.render(PROFILES["tokens and certificates"]).notes
    assert "https://" in notes and "may score" not in notes and "in the clear" not in notes and "NetworkPolic" not in notes
    assert "set networkPolicy.enabled or auth.replicas" in rendering.render({"networkPolicy": {"enabled": False}}).notes
    assert "test.token.secretName is not set" in rendering.render(PROFILES["test not let in"]).notes


def test_notes_tell_where_http_is():
    assert ":50053" not in rendering.render({}).notes
    assert "http://sleuth.rewards.svc:50053 (" in rendering.render(PROFILES["HTTP"]).notes
    assert "https://sleuth.rewards.svc:443 (" in rendering.render(PROFILES["HTTP at other ports"]).notes
