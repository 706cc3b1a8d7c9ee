"""Values that are refused, each with words that the message must hold: the value, and what to do."""

HPA = {"enabled": True}
KEDA = {"enabled": True, "serverAddress": "http://prometheus:9090"}


def pool(**values):
    return {"pools": {"cpu": values}}


def gpu(**values):
    return {"pools": {"gpu": {"enabled": True, **values}}}


# Outside the schema: `at '/path'` is how Helm names the value.
OUTSIDE_THE_SCHEMA = {
    "a value that nobody knows": ({"routers": {}}, ["routers", "not allowed"]),
    "a misspelt value of a pool": (pool(replica=3), ["/pools/cpu", "replica", "not allowed"]),
    "a misspelt value of the router": ({"router": {"replica": 3}}, ["/router", "replica", "not allowed"]),
    "a misspelt value of TLS": ({"tls": {"clients": {"secret": "x"}}}, ["/tls/clients", "secret", "not allowed"]),
    "a device that is none": (pool(device="tpu"), ["/pools/cpu/device", "'cpu', 'gpu'"]),
    "no replicas": (pool(replicas=0), ["/pools/cpu/replicas", "minimum"]),
    "replicas as text": (pool(replicas="2"), ["/pools/cpu/replicas", "want integer"]),
    "half a replica": ({"router": {"replicas": 1.5}}, ["/router/replicas", "want integer"]),
    "no lag": ({"drain": {"lagSeconds": 0}}, ["/drain/lagSeconds", "minimum"]),
    "a lag that the server does not take": ({"drain": {"lagSeconds": 601}}, ["/drain/lagSeconds", "maximum"]),
    "a deadline of a day and more": ({"drain": {"deadlineSeconds": 86401}}, ["/drain/deadlineSeconds", "maximum"]),
    "a grace period set by hand": ({"drain": {"graceSeconds": 60}}, ["/drain", "graceSeconds"]),
    "a port that is none": ({"ports": {"grpc": 70000}}, ["/ports/grpc", "maximum"]),
    "an HTTP port that is none": ({"ports": {"http": 0}}, ["/ports/http", "minimum"]),
    "a port of HTTP in the wrong place": ({"http": {"enabled": True, "port": 80}}, ["/http", "port", "not allowed"]),
    "HTTP that is on by text": ({"http": {"enabled": "yes"}}, ["/http/enabled", "want boolean"]),
    "an unknown source of models": ({"model": {"source": "hub"}}, ["/model/source", "'image', 'claim', 'imageVolume', 'initContainer'"]),
    "an unknown discovery": ({"router": {"discovery": "consul"}}, ["/router/discovery", "'kubernetes', 'dns'"]),
    "a digest that is none": ({"image": {"digest": "sha256:12"}}, ["/image/digest", "pattern"]),
    "a Secret's name in capitals": ({"auth": {"clients": {"secretName": "Callers"}}}, ["/auth/clients/secretName", "pattern"]),
    "a pool's name in capitals": ({"pools": {"CPU": {"enabled": True}}}, ["'CPU' does not match pattern"]),
    "a pool's name that is too long": ({"pools": {"a-pool-with-a-long-name": {"enabled": True}}}, ["'a-pool-with-a-long-name' does not match pattern"]),
    "a setting that is a list": ({"settings": {"log": {"filter": ["info"]}}}, ["/settings/log/filter"]),
    "a setting outside a section": ({"settings": {"listen": "x"}}, ["/settings/listen", "want"]),
    "a share that is none": (pool(strategy={"maxSurge": "half"}), ["/pools/cpu/strategy/maxSurge", "pattern"]),
    "a wait that is none": (pool(autoscaling={"targetQueueSeconds": 0}), ["/pools/cpu/autoscaling/targetQueueSeconds", "minimum"]),
    "a kind of Service that is none": ({"service": {"type": "ExternalName"}}, ["/service/type", "'ClusterIP', 'NodePort', 'LoadBalancer'"]),
    "a variable without a name": (pool(extraEnv=[{"value": "1"}]), ["/pools/cpu/extraEnv/0", "name"]),
    "a mount that is relative": (pool(extraVolumeMounts=[{"name": "a", "mountPath": "a"}]), ["/pools/cpu/extraVolumeMounts/0/mountPath"]),
    "nobody answers DNS": ({"networkPolicy": {"dns": []}}, ["/networkPolicy/dns", "minItems"]),
    "an interval without a unit": ({"metrics": {"podMonitor": {"interval": "30"}}}, ["/metrics/podMonitor/interval", "pattern"]),
}

# Inside the schema, and together without sense.
WITHOUT_SENSE = {
    "no pool": (pool(enabled=False), ["pools: none is enabled", "pools.cpu.enabled"]),
    "two autoscalers": (pool(autoscaling={"hpa": HPA, "keda": KEDA}), ["pools.cpu.autoscaling.hpa.enabled", "keda.enabled", "take one"]),
    "fewer at most than at least": (pool(replicas=5, autoscaling={"hpa": HPA}), ["pools.cpu.autoscaling.maxReplicas is 4", "pools.cpu.replicas, which is 5"]),
    "KEDA without Prometheus": (pool(autoscaling={"keda": {"enabled": True}}), ["pools.cpu.autoscaling.keda.serverAddress"]),
    "two certificates for callers": ({"tls": {"clients": {"secretName": "a", "certManager": {"enabled": True, "issuerRef": {"name": "b"}}}}},
                                     ["tls.clients.secretName", "tls.clients.certManager.enabled"]),
    "two certificates for replicas": ({"tls": {"replicas": {"secretName": "a", "certManager": {"enabled": True, "issuerRef": {"name": "b"}}}}},
                                      ["tls.replicas.secretName", "tls.replicas.certManager.enabled"]),
    "no issuer": ({"tls": {"clients": {"certManager": {"enabled": True}}}}, ["tls.clients.certManager.issuerRef.name"]),
    "callers' authorities without TLS": ({"tls": {"clients": {"clientCA": {"secretName": "a"}}}}, ["tls.clients.clientCA.secretName is set without TLS"]),
    "replicas' TLS without a router": ({"router": {"enabled": False}, "tls": {"replicas": {"secretName": "a"}}}, ["tls.replicas", "router.enabled is false", "tls.clients"]),
    "a router's token without a router": ({"router": {"enabled": False}, "auth": {"routerToken": {"secretName": "a"}}}, ["auth.routerToken.secretName", "router.enabled is false"]),
    "credentials and no token": ({"auth": {"replicas": {"secretName": "a"}}}, ["auth.replicas.secretName", "auth.routerToken.secretName"]),
    "a token and no credentials": ({"auth": {"routerToken": {"secretName": "a"}}}, ["auth.routerToken.secretName", "auth.replicas.secretName"]),
    "the router's authority without credentials": ({"tls": {"replicas": {"secretName": "a", "clientCA": {"secretName": "b"}, "clientCertificate": {"secretName": "c"}}}},
                                                   ["tls.replicas.clientCA.secretName needs auth.replicas.secretName"]),
    "replicas ask for a certificate that the router lacks": (
        {"tls": {"replicas": {"secretName": "a", "clientCA": {"secretName": "b"}}}, "auth": {"replicas": {"secretName": "c"}, "routerToken": {"secretName": "d"}}},
        ["tls.replicas.clientCA.secretName", "tls.replicas.clientCertificate.secretName"]),
    "a certificate that nobody asks for": (
        {"tls": {"replicas": {"secretName": "a", "clientCertificate": {"secretName": "b"}}}, "auth": {"replicas": {"secretName": "c"}}},
        ["tls.replicas.clientCertificate.secretName", "tls.replicas.clientCA.secretName"]),
    "a budget of none": (pool(podDisruptionBudget={"maxUnavailable": 0}), ["pools.cpu.podDisruptionBudget.maxUnavailable 0", "never allow an eviction"]),
    "a budget that keeps all": (pool(podDisruptionBudget={"minAvailable": 2}), ["pools.cpu.podDisruptionBudget.minAvailable 2 of 2", "never allow an eviction"]),
    "a budget that keeps all, as a share": (pool(replicas=3, podDisruptionBudget={"minAvailable": "80%"}), ["minAvailable 80% of 3", "never allow an eviction"]),
    "a budget of all": (pool(podDisruptionBudget={"maxUnavailable": "100%"}), ["pools.cpu.podDisruptionBudget.maxUnavailable 100%", "all 2 replicas"]),
    "a budget that keeps nobody": (pool(podDisruptionBudget={"minAvailable": 0}), ["pools.cpu.podDisruptionBudget.minAvailable 0", "at once"]),
    "a router's budget of none": ({"router": {"podDisruptionBudget": {"maxUnavailable": "0%"}}}, ["router.podDisruptionBudget.maxUnavailable 0%"]),
    "a rollout that cannot begin": (pool(strategy={"maxSurge": "0%", "maxUnavailable": 0}), ["pools.cpu.strategy.maxSurge and maxUnavailable"]),
    "discovery without a token": ({"router": {"serviceAccount": {"automountToken": False}}}, ["router.serviceAccount.automountToken", "router.discovery"]),
    "the default account gets the Role": ({"router": {"serviceAccount": {"create": False}}}, ["router.serviceAccount.create", "router.serviceAccount.name"]),
    "an image volume on an old Kubernetes": ({"kubeVersion": "1.30.9", "model": {"source": "imageVolume", "imageVolume": {"reference": "x"}}},
                                             ["model.source imageVolume needs Kubernetes 1.31", "this is 1.30.9"]),
    "an image volume of no image": ({"model": {"source": "imageVolume"}}, ["model.imageVolume.reference"]),
    "a claim without a name": ({"model": {"source": "claim"}}, ["model.claim.name"]),
    "an init container without an image": ({"model": {"source": "initContainer"}}, ["model.initContainer.image"]),
    "a folder outside the volume": ({"model": {"source": "claim", "claim": {"name": "m"}, "folder": "/opt/m"}}, ['model.folder is "/opt/m"', "/models"]),
    "GPUs of a CPU pool": (pool(gpus=1), ["pools.cpu.gpus is 1", "pools.cpu.device"]),
    "a GPU pool without GPUs": (gpu(gpus=0), ["pools.gpu.gpus is 0"]),
    "one digest for two variants": ({**gpu(), "image": {"digest": "sha256:" + "0" * 64}}, ["image.digest", "pools.gpu.image.digest"]),
    "a pool called router": ({"pools": {"router": {"enabled": True}}}, ["pools.router", "take another"]),
    "a volume with the chart's name": (pool(extraVolumes=[{"name": "config", "emptyDir": {}}]), ["pools.cpu.extraVolumes", "config"]),
    "one port for gRPC and probes": ({"ports": {"grpc": 50052}}, ["ports.admin and ports.grpc are both 50052", "change one"]),
    "one port for gRPC and HTTP": ({"http": {"enabled": True}, "ports": {"http": 50051}}, ["ports.grpc and ports.http are both 50051", "change one"]),
    "one port for probes and HTTP": ({"http": {"enabled": True}, "ports": {"http": 50052}}, ["ports.admin and ports.http are both 50052", "change one"]),
    "one port of the Service for gRPC and HTTP": ({"http": {"enabled": True}, "service": {"httpPort": 50051}}, ["service.port and service.httpPort are both 50051", "change one"]),
    "HTTP by settings": ({"settings": {"http": {"listen": "0.0.0.0:80"}}}, ["settings.http.listen is derived", "http.enabled, bindAddress and ports.http"]),
    "HTTP of a pool behind a router": (pool(settings={"http": {"insecure": True}}), ["pools.cpu.settings.http.insecure is derived", "from tls"]),
    "HTTP by a variable": ({"router": {"extraEnv": [{"name": "SLEUTH_HTTP_LISTEN", "value": "0.0.0.0:80"}]}}, ["router.extraEnv", "SLEUTH_HTTP_LISTEN", "http.enabled"]),
    "a shared setting that is derived": ({"settings": {"server": {"listen": "0.0.0.0:1"}}}, ["settings.server.listen is derived", "bindAddress and ports.grpc"]),
    "a pool's setting that is derived": (pool(settings={"admin": {"insecure": False}}), ["pools.cpu.settings.admin.insecure is derived"]),
    "a router's setting that is derived": ({"router": {"settings": {"router": {"replicas": "dns://a:1"}}}}, ["router.settings.router.replicas is derived", "router.discovery"]),
    "a drain set twice": ({"settings": {"server": {"drain_deadline_seconds": 5}}}, ["settings.server.drain_deadline_seconds", "drain.deadlineSeconds"]),
    "the tenant header behind a router": (pool(settings={"server": {"tenant_header": "x-tenant"}}), ["pools.cpu.settings.server.tenant_header is derived"]),
    "a model's folder set twice": ({"model": {"source": "claim", "claim": {"name": "m"}}, "settings": {"model": {"folder": "/m"}}}, ["settings.model.folder is derived", "from model"]),
    "a variable that would win": (pool(extraEnv=[{"name": "SLEUTH_SERVER_LISTEN", "value": "x"}]), ["pools.cpu.extraEnv", "SLEUTH_SERVER_LISTEN", "bindAddress"]),
    "a name that no Service takes": ({"fullnameOverride": "1st"}, ['"1st"', "fullnameOverride"]),
}
