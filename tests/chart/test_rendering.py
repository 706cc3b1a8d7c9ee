"""The matrix: Helm's lint, Kubernetes' schemas, what holds of every rendering."""

import functools

import jsonschema
import kubernetes_validate
import pytest
from kubernetes_validate import utils as schemas

import invariants
import rendering
from conftest import rendered
from custom_resources import SCHEMAS
from objects import selects, selectors, workloads
from profiles import LONG, NEED_1_31, PROFILES
from references import external

# Schemas are read from disk at each call otherwise.
schemas.schema_contents = functools.cache(schemas.schema_contents)

# The oldest that Chart.yaml allows, and the two newest that the package has.
VERSIONS = ["1.30"] + sorted({schemas.major_minor(v) for v in schemas.all_versions()}, key=schemas.Version)[-2:]


def test_there_are_versions_to_validate_against():
    assert len(set(VERSIONS)) == 3
    assert len(PROFILES) >= 15


def test_lint_finds_nothing(profile):
    assert rendering.lint(PROFILES[profile]) == []


def validate(o, version):
    schema = SCHEMAS.get((o["apiVersion"], o["kind"]))
    if schema is not None:
        jsonschema.validate(o, schema)
    else:
        kubernetes_validate.validate(o, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_what_kubernetes_takes(profile, version):
    if version == "1.30" and profile in NEED_1_31:
        with pytest.raises(rendering.Refused, match="needs Kubernetes 1.31"):
            rendering.render({**PROFILES[profile], "kubeVersion": "1.30.4"})
        return
    for o in rendered(profile).objects:
        try:
            validate(o, version)
        except jsonschema.ValidationError as error:
            pytest.fail(f"{o['kind']} {o['metadata']['name']}: {list(error.path)}: {error.message}")


def test_a_wrong_field_is_not_what_kubernetes_takes():
    deployment = rendered("defaults").one("Deployment", "sleuth-cpu")
    broken = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    with pytest.raises(jsonschema.ValidationError, match="replica"):
        validate(broken, VERSIONS[-1])


def test_invariants_hold(rendering_of):
    assert invariants.faults(rendering_of.objects, external(rendering_of.values)) == []


def test_custom_resources_have_schemas_here_and_all_are_rendered():
    """Every kind is validated by one schema or the other, and no schema here is for nothing."""
    kinds = {(o["apiVersion"], o["kind"]) for p in PROFILES for o in rendered(p).objects}
    assert set(SCHEMAS) <= kinds


def test_two_releases_in_one_namespace_do_not_collide(profile):
    names = []
    for release in ["sleuth", "sleuth-b", LONG, LONG[:-1] + "x"]:
        values = {k: v for k, v in PROFILES[profile].items() if k != "fullnameOverride"}
        names.append({(o["kind"], o["metadata"]["name"]) for o in rendering.render(values, release=release).objects})
    for place, one in enumerate(names):
        for other in names[place + 1:]:
            assert one.isdisjoint(other)


def test_two_releases_do_not_select_each_others_pods(profile):
    ours, theirs = rendered(profile).objects, rendering.render(PROFILES[profile], release="sleuth-b").objects
    for one, other in [(ours, theirs), (theirs, ours)]:
        pods = [w.labels for w in workloads(other)]
        for kind, selector in selectors(one):
            assert not any(selects(selector, labels) for labels in pods), kind


def test_selectors_of_two_releases_differ_in_the_instance_alone():
    one = rendered("defaults").one("Deployment", "sleuth-cpu")["spec"]["selector"]["matchLabels"]
    other = rendering.render({}, release="sleuth-b").one("Deployment", "sleuth-b-cpu")["spec"]["selector"]["matchLabels"]
    assert {k for k in one if one[k] != other[k]} == {"app.kubernetes.io/instance"}
