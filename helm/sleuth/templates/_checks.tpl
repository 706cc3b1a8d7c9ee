{{/* What values must not say together, each with what to do. Faults of single values are the schema's. */}}

{{- define "sleuth.checkNames" -}}
{{- $name := include "sleuth.fullName" . -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- fail (printf "the name %q does not begin with a letter, as a Service's must: set fullnameOverride" $name) -}}
{{- end -}}
{{- $account := .Values.router.serviceAccount -}}
{{- if and .Values.router.enabled (eq .Values.router.discovery "kubernetes") -}}
{{- if ne (include "sleuth.routerToken" .) "true" -}}
{{- fail "router.serviceAccount.automountToken is false, and router.discovery kubernetes needs the token: leave it out, or set router.discovery to dns" -}}
{{- end -}}
{{- if and (not $account.create) (not $account.name) -}}
{{- fail "router.serviceAccount.create is false and no name is set, so that the namespace's default account would get the Role: set router.serviceAccount.name" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sleuth.checkPorts" -}}
{{- $ports := pick .Values.ports "grpc" "admin" -}}
{{- if .Values.http.enabled -}}
{{- $_ := set $ports "http" .Values.ports.http -}}
{{- if eq (int .Values.service.port) (int .Values.service.httpPort) -}}
{{- fail (printf "service.port and service.httpPort are both %d, and a Service has a port once: change one" (int .Values.service.port)) -}}
{{- end -}}
{{- end -}}
{{- $taken := dict -}}
{{- range $name := keys $ports | sortAlpha -}}
{{- $port := get $ports $name | int | toString -}}
{{- with get $taken $port -}}
{{- fail (printf "ports.%s and ports.%s are both %s, and a pod listens on a port once: change one" . $name $port) -}}
{{- end -}}
{{- $_ := set $taken $port $name -}}
{{- end -}}
{{- end }}

{{/* Takes where (the values' path) and tls (the way's values). */}}
{{- define "sleuth.checkCertificate" -}}
{{- if and .tls.secretName .tls.certManager.enabled -}}
{{- fail (printf "%s.secretName and %s.certManager.enabled are both set: a certificate comes from one of them" .where .where) -}}
{{- end -}}
{{- if and .tls.certManager.enabled (not (dig "name" "" .tls.certManager.issuerRef)) -}}
{{- fail (printf "%s.certManager.issuerRef.name is not set: name the issuer" .where) -}}
{{- end -}}
{{- if and .tls.clientCA.secretName (not .tls.secretName) (not .tls.certManager.enabled) -}}
{{- fail (printf "%s.clientCA.secretName is set without TLS: set %s.secretName or %s.certManager.enabled" .where .where .where) -}}
{{- end -}}
{{- end }}

{{- define "sleuth.checkSecurity" -}}
{{- $tls := .Values.tls.replicas -}}
{{- $auth := .Values.auth -}}
{{- include "sleuth.checkCertificate" (dict "where" "tls.clients" "tls" .Values.tls.clients) -}}
{{- include "sleuth.checkCertificate" (dict "where" "tls.replicas" "tls" $tls) -}}
{{- if not .Values.router.enabled -}}
{{- range $where, $set := dict
      "tls.replicas" (or $tls.secretName $tls.certManager.enabled)
      "auth.replicas.secretName" $auth.replicas.secretName
      "auth.routerToken.secretName" $auth.routerToken.secretName -}}
{{- if $set -}}
{{- fail (printf "%s is for the way from the router to replicas, and router.enabled is false: set tls.clients and auth.clients" $where) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $auth.replicas.secretName (not $auth.routerToken.secretName) (not $tls.clientCertificate.secretName) -}}
{{- fail "auth.replicas.secretName is set and the router has nothing to show: set auth.routerToken.secretName, or tls.replicas.clientCertificate.secretName" -}}
{{- end -}}
{{- if and $auth.routerToken.secretName (not $auth.replicas.secretName) -}}
{{- fail "auth.routerToken.secretName is set and replicas know no tokens: set auth.replicas.secretName" -}}
{{- end -}}
{{- if and $tls.clientCA.secretName (not $auth.replicas.secretName) -}}
{{- fail "tls.replicas.clientCA.secretName needs auth.replicas.secretName, whose file gives the certificate's name the role router" -}}
{{- end -}}
{{- if and $tls.clientCA.secretName (not $tls.clientCertificate.secretName) -}}
{{- fail "tls.replicas.clientCA.secretName has replicas ask for a certificate, and the router has none: set tls.replicas.clientCertificate.secretName" -}}
{{- end -}}
{{- if and $tls.clientCertificate.secretName (not $tls.clientCA.secretName) -}}
{{- fail "tls.replicas.clientCertificate.secretName is set and replicas ask for no certificate: set tls.replicas.clientCA.secretName" -}}
{{- end -}}
{{- end }}

{{- define "sleuth.checkModel" -}}
{{- $model := .Values.model -}}
{{- if and (eq $model.source "claim") (not $model.claim.name) -}}
{{- fail "model.source is claim and model.claim.name is not set: name a PersistentVolumeClaim" -}}
{{- end -}}
{{- if and (eq $model.source "initContainer") (not $model.initContainer.image) -}}
{{- fail "model.source is initContainer and model.initContainer.image is not set: name an image" -}}
{{- end -}}
{{- if eq $model.source "imageVolume" -}}
{{- if not $model.imageVolume.reference -}}
{{- fail "model.source is imageVolume and model.imageVolume.reference is not set: name an image" -}}
{{- end -}}
{{- $version := .Values.kubeVersion | default .Capabilities.KubeVersion.Version -}}
{{- if semverCompare "<1.31.0-0" $version -}}
{{- fail (printf "model.source imageVolume needs Kubernetes 1.31 or later with the feature gate ImageVolume, and this is %s: take claim or initContainer" $version) -}}
{{- end -}}
{{- end -}}
{{- if and (ne $model.source "image") (hasPrefix "/" $model.folder) -}}
{{- fail (printf "model.folder is %q: with model.source %s it lies under /models, so it begins with no slash" $model.folder $model.source) -}}
{{- end -}}
{{- end }}

{{/* Takes where, budget and count: the least number of pods; most: the largest. */}}
{{- define "sleuth.checkBudget" -}}
{{- $least := .budget.minAvailable -}}
{{- if or $least (eq (toString $least) "0") -}}
{{- $stay := include "sleuth.countOf" (dict "of" $least "count" .count) | int -}}
{{- if ge $stay (int .count) -}}
{{- fail (printf "%s.podDisruptionBudget.minAvailable %v of %d replicas would never allow an eviction: take less, or more replicas" .where $least (int .count)) -}}
{{- end -}}
{{- if lt $stay 1 -}}
{{- fail (printf "%s.podDisruptionBudget.minAvailable %v would allow all replicas to be evicted at once: take 1 or more" .where $least) -}}
{{- end -}}
{{- else -}}
{{- $go := include "sleuth.countOf" (dict "of" .budget.maxUnavailable "count" .count) | int -}}
{{- if lt $go 1 -}}
{{- fail (printf "%s.podDisruptionBudget.maxUnavailable %v would never allow an eviction: take 1 or more" .where .budget.maxUnavailable) -}}
{{- end -}}
{{- if and (gt (int .count) 1) (ge $go (int .count)) -}}
{{- fail (printf "%s.podDisruptionBudget.maxUnavailable %v would allow all %d replicas to be evicted at once: take less" .where .budget.maxUnavailable (int .count)) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Takes where, part and names (of the chart's volumes). */}}
{{- define "sleuth.checkPart" -}}
{{- $where := .where -}}
{{- $strategy := .part.strategy -}}
{{- if and (has (toString $strategy.maxSurge) (list "0" "0%")) (has (toString $strategy.maxUnavailable) (list "0" "0%")) -}}
{{- fail (printf "%s.strategy.maxSurge and maxUnavailable are both 0, so that a rollout could not begin: raise one" $where) -}}
{{- end -}}
{{- range .part.extraVolumes -}}
{{- if has .name (list "config" "tls" "client-ca" "credentials" "replica-ca" "router-tls" "router-token" "models") -}}
{{- fail (printf "%s.extraVolumes: the name %s is the chart's own: take another" $where .name) -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* Takes root, name and pool. */}}
{{- define "sleuth.checkPool" -}}
{{- $where := printf "pools.%s" .name -}}
{{- $pool := .pool -}}
{{- $scaling := $pool.autoscaling -}}
{{- if has .name (list "router" "replicas" "test" "tls" "dashboard") -}}
{{- fail (printf "%s: this name is the chart's own: take another" $where) -}}
{{- end -}}
{{- include "sleuth.checkPart" (dict "where" $where "part" $pool) -}}
{{- if and (eq $pool.device "gpu") (lt (int $pool.gpus) 1) -}}
{{- fail (printf "%s.gpus is %d and the device is gpu: set how many GPUs a replica has" $where (int $pool.gpus)) -}}
{{- end -}}
{{- if and (eq $pool.device "cpu") (gt (int $pool.gpus) 0) -}}
{{- fail (printf "%s.gpus is %d and the device is cpu: set %s.device to gpu, or take gpus away" $where (int $pool.gpus) $where) -}}
{{- end -}}
{{- if and (eq $pool.device "gpu") .root.Values.image.digest (not (dig "digest" "" $pool.image)) -}}
{{- fail (printf "image.digest names one image, and %s needs the variant for GPUs: set %s.image.digest" $where $where) -}}
{{- end -}}
{{- if and $scaling.hpa.enabled $scaling.keda.enabled -}}
{{- fail (printf "%s.autoscaling.hpa.enabled and keda.enabled are both set, and both would set the number of replicas: take one" $where) -}}
{{- end -}}
{{- if and (or $scaling.hpa.enabled $scaling.keda.enabled) (lt (int $scaling.maxReplicas) (int $pool.replicas)) -}}
{{- fail (printf "%s.autoscaling.maxReplicas is %d, less than %s.replicas, which is %d and the least" $where (int $scaling.maxReplicas) $where (int $pool.replicas)) -}}
{{- end -}}
{{- if and $scaling.keda.enabled (not $scaling.keda.serverAddress) -}}
{{- fail (printf "%s.autoscaling.keda.serverAddress is not set: name Prometheus" $where) -}}
{{- end -}}
{{- if and $pool.podDisruptionBudget.enabled (or (gt (int $pool.replicas) 1) $scaling.hpa.enabled $scaling.keda.enabled) -}}
{{- $count := ternary (max (int $pool.replicas) 2) $pool.replicas (or $scaling.hpa.enabled $scaling.keda.enabled) -}}
{{- include "sleuth.checkBudget" (dict "where" $where "budget" $pool.podDisruptionBudget "count" $count) -}}
{{- end -}}
{{- end }}

{{/* Keys that the chart derives, and the variables that would win over them. Takes where, settings, env
     and derived. */}}
{{- define "sleuth.checkSettings" -}}
{{- $always := dict
      "server" (list "listen" "insecure" "drain_lag_seconds" "drain_deadline_seconds")
      "admin" (list "listen" "insecure")
      "http" (list "listen" "insecure")
      "tls" (list "certificate" "key" "client_ca")
      "auth" (list "credentials")
      "router" (list "replicas" "replica_ca" "replica_server_name" "replica_certificate" "replica_key" "replica_token_file") -}}
{{- $from := dict
      "server.listen" "bindAddress and ports.grpc" "server.insecure" "tls"
      "server.drain_lag_seconds" "drain.lagSeconds" "server.drain_deadline_seconds" "drain.deadlineSeconds"
      "server.tenant_header" "router.enabled and auth.replicas"
      "admin.listen" "bindAddress and ports.admin" "admin.insecure" "bindAddress"
      "http.listen" "http.enabled, bindAddress and ports.http"
      "auth.credentials" "auth.clients and auth.replicas" "model.folder" "model"
      "router.replicas" "router.discovery" "router.replica_token_file" "auth.routerToken" -}}
{{- range $section, $keys := .derived -}}
{{- $_ := set $always $section (concat (get $always $section | default list) (keys $keys) | uniq) -}}
{{- end -}}
{{- range $section, $keys := $always -}}
{{- range $key := sortAlpha $keys -}}
{{- $name := printf "%s.%s" $section $key -}}
{{- $source := get $from $name | default "tls" -}}
{{- if hasKey (get $.settings $section | default dict) $key -}}
{{- fail (printf "%s.%s is derived by the chart, from %s: take it away" $.where $name $source) -}}
{{- end -}}
{{- $variable := printf "SLEUTH_%s" (upper $name | replace "." "_") -}}
{{- range $.env -}}
{{- if eq .name $variable -}}
{{- fail (printf "%s: the variable %s would win over what the chart derives from %s: take it away" $.envWhere $variable $source) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}

{{- define "sleuth.checks" -}}
{{- include "sleuth.checkNames" . -}}
{{- include "sleuth.checkPorts" . -}}
{{- include "sleuth.checkSecurity" . -}}
{{- include "sleuth.checkModel" . -}}
{{- $pools := include "sleuth.pools" . | fromJson -}}
{{- if not $pools -}}
{{- fail "pools: none is enabled: set pools.cpu.enabled or pools.gpu.enabled" -}}
{{- end -}}
{{- $derived := include "sleuth.derivedForReplicas" . | fromJson -}}
{{- include "sleuth.checkSettings" (dict "where" "settings" "settings" .Values.settings "env" list "envWhere" "" "derived" $derived) -}}
{{- range $name, $pool := $pools -}}
{{- include "sleuth.checkPool" (dict "root" $ "name" $name "pool" $pool) -}}
{{- $where := printf "pools.%s" $name -}}
{{- include "sleuth.checkSettings" (dict "where" (printf "%s.settings" $where) "settings" ($pool.settings | default dict)
      "env" $pool.extraEnv "envWhere" (printf "%s.extraEnv" $where) "derived" $derived) -}}
{{- end -}}
{{- with .Values.router -}}
{{- if .enabled -}}
{{- include "sleuth.checkPart" (dict "where" "router" "part" .) -}}
{{- include "sleuth.checkSettings" (dict "where" "router.settings" "settings" (.settings | default dict)
      "env" .extraEnv "envWhere" "router.extraEnv" "derived" (include "sleuth.derivedForRouter" $ | fromJson)) -}}
{{- if and .podDisruptionBudget.enabled (gt (int .replicas) 1) -}}
{{- include "sleuth.checkBudget" (dict "where" "router" "budget" .podDisruptionBudget "count" .replicas) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end }}
