"""What is required of objects of operators, whose schemas no package here has. Written by hand from their
documentation, for the fields that the chart uses: a field that the chart adds must be added here too."""

TEXT = {"type": "string", "minLength": 1}
LABELS = {"type": "object", "additionalProperties": {"type": "string"}}
DURATION = {"type": "string", "pattern": r"^(\d+(h|m|s|ms))+$"}


def closed(required, **more):
    return {"type": "object", "additionalProperties": False, "required": list(required), "properties": {**required, **more}}


SELECTOR = closed({"matchLabels": {**LABELS, "minProperties": 1}})

POD_MONITOR = closed({
    "selector": SELECTOR,
    "podMetricsEndpoints": {"type": "array", "minItems": 1, "items": closed(
        {"port": TEXT}, path=TEXT, interval=DURATION, scrapeTimeout=DURATION,
        relabelings={"type": "array"}, metricRelabelings={"type": "array"})},
}, namespaceSelector=closed({"matchNames": {"type": "array", "items": TEXT}}))

PROMETHEUS_RULE = closed({"groups": {"type": "array", "minItems": 1, "items": closed({
    "name": TEXT,
    "rules": {"type": "array", "minItems": 1, "items": closed(
        {"alert": TEXT, "expr": TEXT, "labels": LABELS, "annotations": LABELS}, **{"for": DURATION})},
})}})

SCALED_OBJECT = closed({
    "scaleTargetRef": closed({"name": TEXT}, apiVersion=TEXT, kind=TEXT),
    "minReplicaCount": {"type": "integer", "minimum": 1},
    "maxReplicaCount": {"type": "integer", "minimum": 1},
    "triggers": {"type": "array", "minItems": 1, "items": closed({
        "type": {"const": "prometheus"},
        "metadata": closed({"serverAddress": {"type": "string", "pattern": "^https?://"}, "query": TEXT,
                            "threshold": {"type": "string", "pattern": r"^\d+(\.\d+)?$"}},
                           ignoreNullValues={"enum": ["true", "false"]}),
    }, metricType={"enum": ["AverageValue", "Value"]}, authenticationRef=closed({"name": TEXT}, kind=TEXT))},
}, pollingInterval={"type": "integer", "minimum": 1},
    advanced=closed({"horizontalPodAutoscalerConfig": closed({"behavior": {"type": "object"}})}))

CERTIFICATE = closed({
    "secretName": TEXT,
    "issuerRef": closed({"name": TEXT}, kind=TEXT, group=TEXT),
    "dnsNames": {"type": "array", "minItems": 1, "items": TEXT, "uniqueItems": True},
}, duration=DURATION, renewBefore=DURATION,
    privateKey=closed({"algorithm": {"enum": ["RSA", "ECDSA", "Ed25519"]}}, size={"type": "integer"}, rotationPolicy={"enum": ["Always", "Never"]}),
    usages={"type": "array", "items": {"enum": ["digital signature", "key encipherment", "server auth", "client auth"]}})

METADATA = closed({"name": TEXT, "namespace": TEXT, "labels": LABELS}, annotations=LABELS)

SCHEMAS = {
    (version, kind): closed({"apiVersion": {"const": version}, "kind": {"const": kind}, "metadata": METADATA, "spec": spec})
    for version, kind, spec in [
        ("monitoring.coreos.com/v1", "PodMonitor", POD_MONITOR),
        ("monitoring.coreos.com/v1", "PrometheusRule", PROMETHEUS_RULE),
        ("keda.sh/v1alpha1", "ScaledObject", SCALED_OBJECT),
        ("cert-manager.io/v1", "Certificate", CERTIFICATE),
    ]
}
