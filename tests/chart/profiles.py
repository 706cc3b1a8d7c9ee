"""Values that the chart is rendered with: each a way somebody might run it."""

LONG = "a-release-name-as-long-as-helm-lets-one-be-0123456789"

ISSUER = {"enabled": True, "issuerRef": {"name": "internal", "kind": "ClusterIssuer"}}

TLS = {
    "clients": {"secretName": "clients-tls"},
    "replicas": {"secretName": "replicas-tls"},
}

SECURED = {
    "tls": {
        "clients": {"secretName": "clients-tls", "clientCA": {"secretName": "callers-ca"}},
        "replicas": {
            "secretName": "replicas-tls",
            "ca": {"secretName": "replicas-ca", "key": "root.pem"},
            "serverName": "replicas.internal",
            "clientCertificate": {"secretName": "router-tls"},
            "clientCA": {"secretName": "router-ca"},
        },
    },
    "auth": {
        "clients": {"secretName": "callers"},
        "replicas": {"secretName": "routers", "key": "routers.toml"},
        "routerToken": {"secretName": "router-token"},
    },
    "test": {
        "ca": {"secretName": "public-ca"},
        "serverName": "rewards.example",
        "token": {"secretName": "test-token"},
        "clientCertificate": {"secretName": "test-tls"},
    },
}

MONITORED = {
    "metrics": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True},
        "dashboard": {"enabled": True, "annotations": {"folder": "Training"}},
    },
    "autoscaling": {"adapterRule": {"enabled": True}},
}

SETTINGS = {
    "settings": {
        "log": {"json": None, "filter": "info,sleuth_engine=debug"},
        "metrics": {"tenants": 12},
        "traces": {"endpoint": "http://collector.tracing.svc:4317", "sample": 0.05, "attributes": "deployment.environment=test"},
        "engine": {"prefix_cache_mib": 16777216, "kv": "f16"},
    },
    "pools": {
        "cpu": {
            "settings": {
                "admission": {"max_wait_seconds": 0.5, "burst_seconds": 0, "tenant_share": 2},
                "engine": {"workers": 2, "prefix_cache_mib": 2048},
                "model": {"tau": 1},
                "limits": {"max_item_seconds": 30.5},
            }
        }
    },
    "router": {"settings": {"router": {"max_attempts": 6, "silence_seconds": 1.5}, "log": {"filter": "debug"}}},
    "networkPolicy": {"otlp": {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tracing"}}}]}},
}

POOL_WITH_ALL = {
    "enabled": True,
    "device": "gpu",
    "gpus": 2,
    "replicas": 3,
    "image": {"repository": "registry.example/sleuth", "tag": "0.1.0", "tagSuffix": "-cuda12"},
    "nodeSelector": {"accelerator": "h100"},
    "tolerations": [{"key": "team", "operator": "Equal", "value": "rewards", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "gpu", "operator": "Exists"}]}]}}},
    "topologySpreadConstraints": [{"maxSkew": 2, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}],
    "priorityClassName": "training",
    "runtimeClassName": "nvidia",
    "schedulerName": "volcano",
    "podAnnotations": {"team": "rewards"},
    "podLabels": {"cost-centre": "rl"},
    "extraEnv": [{"name": "RUST_BACKTRACE", "value": "1"},
                 {"name": "SLEUTH_ENDPOINT_KEY", "valueFrom": {"secretKeyRef": {"name": "endpoint", "key": "key"}}}],
    "extraEnvFrom": [{"secretRef": {"name": "more-environment"}}],
    "extraVolumes": [{"name": "baseline", "configMap": {"name": "baseline"}}],
    "extraVolumeMounts": [{"name": "baseline", "mountPath": "/baseline", "readOnly": True}],
    "settings": {"metrics": {"reward_baseline": "/baseline/baseline.json"}},
    "minReadySeconds": 10,
    "strategy": {"maxSurge": "25%", "maxUnavailable": 1},
    "podDisruptionBudget": {"minAvailable": "50%"},
}

HTTP = {"http": {"enabled": True}, "settings": {"http": {"max_samples": 512}}}

PROFILES = {
    "defaults": {},
    "gpu pool": {"pools": {"cpu": {"enabled": False}, "gpu": {"enabled": True}}},
    "cpu and gpu pools": {"pools": {"cpu": {"replicas": 3}, "gpu": {"enabled": True, "gpus": 8, "replicas": 4}}},
    "no router": {"router": {"enabled": False}},
    "no router, secured": {
        "router": {"enabled": False},
        "tls": {"clients": {"secretName": "clients-tls"}},
        "auth": {"clients": {"secretName": "callers"}},
        "test": {"token": {"secretName": "test-token"}},
    },
    "discovery by DNS": {"router": {"discovery": "dns"}, "clusterDomain": "cluster.example"},
    "TLS by secrets": {"tls": TLS},
    "TLS and DNS": {"tls": TLS, "router": {"discovery": "dns"}},
    "TLS by cert-manager": {"tls": {"clients": {"certManager": {**ISSUER, "dnsNames": ["rewards.example"]}}, "replicas": {"certManager": ISSUER}}},
    "tokens and certificates": SECURED,
    "tokens in the clear": {"auth": {"replicas": {"secretName": "routers"}, "routerToken": {"secretName": "router-token"}}},
    "test not let in": {"auth": {"clients": {"secretName": "callers"}}},
    "settings": SETTINGS,
    "HPA": {"pools": {"cpu": {"autoscaling": {"hpa": {"enabled": True}, "maxReplicas": 12, "targetQueueSeconds": 1.25}}}},
    "KEDA": {"pools": {"gpu": {"enabled": True, "autoscaling": {"keda": {
        "enabled": True, "serverAddress": "http://prometheus.monitoring.svc:9090", "authenticationRef": {"name": "prometheus"}}}}}},
    "monitored": MONITORED,
    "model on a volume": {"model": {"source": "claim", "claim": {"name": "models"}, "folder": "tldr-1"},
                          "poolDefaults": {"settings": {"model": {"root": "/models"}}}},
    "model in an image": {"model": {"source": "imageVolume", "imageVolume": {"reference": "registry.example/models/tldr:1"}}},
    "model by a container": {"model": {"source": "initContainer", "folder": "tldr", "initContainer": {
        "image": "registry.example/fetch:1", "command": ["fetch"], "args": ["s3://models/tldr", "/models/tldr"],
        "env": [{"name": "AWS_REGION", "value": "eu-west-1"}], "envFrom": [{"secretRef": {"name": "bucket"}}],
        "resources": {"limits": {"memory": "1Gi"}}, "sizeLimit": "20Gi"}}},
    "a model of the image's": {"model": {"folder": "/opt/models/tldr"}, "image": {"digest": "sha256:" + "ab" * 32}},
    "a pool with everything": {"pools": {"cpu": None, "h100": POOL_WITH_ALL}, "commonLabels": {"team": "rl"},
                               "imagePullSecrets": [{"name": "registry"}]},
    "other ports and IPv6": {"bindAddress": "[::]", "ports": {"grpc": 6000, "admin": 6001}, "service": {"port": 443, "type": "LoadBalancer",
        "externalTrafficPolicy": "Local", "loadBalancerSourceRanges": ["10.0.0.0/8"], "annotations": {"internal": "true"}}},
    "HTTP": HTTP,
    "HTTP without a router": {**HTTP, "router": {"enabled": False}},
    "HTTP, secured": {**SECURED, **HTTP},
    "HTTP at other ports": {"http": {"enabled": True}, "bindAddress": "[::]", "ports": {"grpc": 6000, "admin": 6001, "http": 6002},
        "tls": {"clients": {"secretName": "clients-tls"}}, "service": {"port": 8443, "httpPort": 443, "type": "LoadBalancer"},
        "networkPolicy": {"callers": [{"namespaceSelector": {"matchLabels": {"team": "rl"}}}]}},
    "long drain": {"drain": {"lagSeconds": 30, "deadlineSeconds": 600}},
    "one of each": {"pools": {"cpu": {"replicas": 1}}, "router": {"replicas": 1}, "networkPolicy": {"enabled": False}, "test": {"enabled": False}},
    "accounts and classes": {
        "priorityClass": {"create": True, "preemptionPolicy": "Never"},
        "serviceAccount": {"create": False, "name": "ours"},
        "router": {"serviceAccount": {"create": False, "name": "ours-router"}, "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]},
    },
    "names of its own": {"nameOverride": "rewards", "fullnameOverride": "judge"},
    "narrow network": {"networkPolicy": {
        "callers": [{"namespaceSelector": {"matchLabels": {"team": "rl"}}}], "prometheus": [], "egress": True,
        "apiServer": {"to": [{"ipBlock": {"cidr": "10.0.0.1/32"}}], "ports": [6443]},
        "extraReplicaEgress": [{"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 8000}]}],
        "extraRouterEgress": [{"to": [{"podSelector": {}}]}],
        "extraIngress": [{"from": [{"ipBlock": {"cidr": "10.2.0.0/16"}}]}]}},
    "all at once": {**SECURED, **MONITORED, **SETTINGS, "http": {"enabled": True}, "priorityClass": {"create": True},
                    "model": {"source": "claim", "claim": {"name": "models"}},
                    "pools": {"cpu": SETTINGS["pools"]["cpu"] | {"autoscaling": {"hpa": {"enabled": True}}},
                              "gpu": {"enabled": True}, "h100": POOL_WITH_ALL}},
}

# What Kubernetes before 1.31 does not have.
NEED_1_31 = {"model in an image"}
