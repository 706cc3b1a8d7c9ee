"""The matrix: Helm's lint, Kubernetes' schemas, what holds of every rendering."""

import functools
import json
import re
import tarfile

import helm_python
import jsonschema
import kubernetes_validate
import pytest
import yaml
from kubernetes_validate import utils as schemas

import invariants
import rendering
from conftest import rendered
from custom_resources import SCHEMAS
from objects import deployments, selectors, selects, settings, workloads
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


def test_a_change_of_settings_makes_new_pods_where_it_counts_and_nowhere_else():
    def templates(values):
        return {w.name: (w.labels, w.annotations, w.spec) for w in workloads(rendering.render(values).objects) if w.long_lived}

    before = templates({})
    for values, changed in [
        ({"pools": {"cpu": {"settings": {"engine": {"workers": 2}}}}}, {"sleuth-cpu"}),
        ({"router": {"settings": {"router": {"max_attempts": 2}}}}, {"sleuth-router"}),
        ({"settings": {"metrics": {"tenants": 3}}}, {"sleuth-cpu", "sleuth-router"}),
        ({"router": {"replicas": 5}, "networkPolicy": {"egress": False}, "test": {"enabled": False}}, set()),
    ]:
        after = templates(values)
        assert {name for name in before if before[name] != after[name]} == changed


def test_values_of_the_readme_render():
    blocks = re.findall(r"```yaml\n(.*?)```", (rendering.CHART / "README.md").read_text(), re.S)
    assert len(blocks) == 3
    for block in blocks:
        values = yaml.safe_load(block)
        assert invariants.faults(rendering.render(values).objects, external(values)) == []


def test_helm_test_calls_the_client_service(rendering_of):
    for pod in rendering_of.of("Pod"):
        args = pod["spec"]["containers"][0]["args"]
        scheme, host, port = re.fullmatch(r"(https?)://([^:]+):(\d+)", args[args.index("--target") + 1]).groups()
        service = rendering_of.one("Service", host.partition(".")[0])
        assert host == f"{service['metadata']['name']}.{rendering_of.namespace}.svc"
        assert [p["port"] for p in service["spec"]["ports"] if p["name"] == "grpc"] == [int(port)]
        called = next(w for w in deployments(rendering_of.objects) if selects(service["spec"]["selector"], w.labels))
        assert (scheme == "https") == ("tls" in settings(rendering_of.objects, called)) == ("--ca" in args)


def test_issued_certificates_have_the_names_that_are_asked_for():
    objects = rendered("TLS by cert-manager")
    router = next(w for w in deployments(objects.objects) if w.component == "router")
    asked = settings(objects.objects, router)["router"]["replica_server_name"]
    assert asked in objects.one("Certificate", "sleuth-replicas")["spec"]["dnsNames"]
    args = objects.one("Pod", "sleuth-test")["spec"]["containers"][0]["args"]
    host = re.search("//([^:]+):", args[args.index("--target") + 1])[1]
    assert {host, "rewards.example"} <= set(objects.one("Certificate", "sleuth")["spec"]["dnsNames"])


def test_files_are_rendered_as_they_are():
    objects = rendered("monitored")
    files = rendering.CHART / "files"
    assert objects.one("PrometheusRule", "sleuth")["spec"] == yaml.safe_load((files / "alerts.yaml").read_text())
    dashboard = objects.one("ConfigMap", "sleuth-dashboard")
    assert dashboard["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(dashboard["data"]["sleuth.json"]) == json.loads((files / "dashboard.json").read_text())
    adapter = objects.one("ConfigMap", "sleuth-prometheus-adapter")["data"]["prometheus-adapter.yaml"]
    assert yaml.safe_load(adapter) == yaml.safe_load((files / "prometheus-adapter.yaml").read_text())


def test_panels_do_not_overlap():
    places = {}
    for panel in json.loads((rendering.CHART / "files" / "dashboard.json").read_text())["panels"]:
        at = panel["gridPos"]
        for cell in [(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])]:
            assert places.setdefault(cell, panel["title"]) == panel["title"]


def test_a_packaged_chart_is_the_chart(tmp_path):
    packaged = rendering.render({}, chart=helm_python.package(rendering.CHART, destination=tmp_path))
    assert packaged.objects == rendered("defaults").objects
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as archive:
        names = {name.removeprefix("sleuth/") for name in archive.getnames()}
    assert {"Chart.yaml", "README.md", "values.schema.json", "files/alerts.yaml", "files/dashboard.json"} <= names


def unlisted(schema, values, definitions, path=()):
    """Properties of the schema that values.yaml does not show, where it shows their neighbours."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    for name, inner in schema.get("properties", {}).items() if isinstance(values, dict) and values else ():
        if name not in values:
            yield ".".join((*path, name))
        else:
            yield from unlisted(inner, values[name], definitions, (*path, name))


def test_values_show_everything_that_the_schema_allows():
    schema = json.loads((rendering.CHART / "values.schema.json").read_text())
    values = yaml.safe_load((rendering.CHART / "values.yaml").read_text())
    # Helm's own, and what few resources have.
    found = {path for path in unlisted(schema, values, schema["definitions"]) if path != "global" and not path.endswith("resources.claims")}
    assert found == set()
