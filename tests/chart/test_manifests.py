"""k8s/ is what the chart renders, and its overlays build to objects that keep the same promises."""

import pytest

import invariants
import kustomize
import manifests
import readme
from objects import deployments
from rendering import ROOT
from test_rendering import VERSIONS, validate

OVERLAYS = ROOT / "k8s" / "overlays"


@pytest.mark.parametrize("name", manifests.profiles())
def test_manifests_are_the_charts(name):
    written = (manifests.BASE / name / "sleuth.yaml").read_text()
    assert written == manifests.rendered(name), "run tests/chart/render"


def test_every_base_has_an_overlay():
    assert [p.name for p in sorted(OVERLAYS.iterdir())] == manifests.profiles() == ["cluster", "cpu", "gpu-node"]


@pytest.mark.parametrize("name", manifests.profiles())
def test_overlays_build_and_hold(name):
    objects = kustomize.build(OVERLAYS / name)
    assert len(objects) > 10
    for o in objects:
        for version in VERSIONS:
            validate(o, version)
    assert invariants.faults(objects) == []
    namespaces = {o["metadata"]["namespace"] for o in objects if o["kind"] != "Namespace"}
    assert namespaces == {o["metadata"]["name"] for o in objects if o["kind"] == "Namespace"} == {manifests.NAMESPACE}


def test_the_gpu_overlays_keep_the_tag_of_their_variant():
    for name in ["gpu-node", "cluster"]:
        images = {w.component: w.containers[0]["image"] for w in deployments(kustomize.build(OVERLAYS / name))}
        assert images == {"replica": "sleuth:0.1.0-cuda", "router": "sleuth:0.1.0"}


def test_an_overlay_that_names_what_is_not_there_does_not_build(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(kustomize.BuildFailed, match="missing.yaml"):
        kustomize.build(tmp_path)


def test_readme_is_of_the_values():
    assert readme.PAGE.read_text() == readme.page(), "run tests/chart/render"
