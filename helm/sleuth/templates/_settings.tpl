{{/* Writes the second map into the first, maps into maps; null takes a key away. Unlike mergeOverwrite
     it lets false, 0 and "" win in every version of Helm. */}}
{{- define "sleuth.mergeInto" -}}
{{- $into := index . 0 -}}
{{- range $key, $value := index . 1 -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $into $key -}}
{{- else if and (kindIs "map" $value) (kindIs "map" (get $into $key)) -}}
{{- include "sleuth.mergeInto" (list (get $into $key) $value) -}}
{{- else -}}
{{- $_ := set $into $key $value -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The enabled pools by name, each over poolDefaults, as JSON. */}}
{{- define "sleuth.pools" -}}
{{- $pools := dict -}}
{{- range $name, $own := .Values.pools -}}
{{- if $own -}}
{{- $pool := deepCopy $.Values.poolDefaults -}}
{{- include "sleuth.mergeInto" (list $pool (deepCopy $own)) -}}
{{- if $pool.enabled -}}
{{- $_ := set $pools $name $pool -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $pools -}}
{{- end }}

{{/* What replicas know of their callers and who calls them differ where there is a router. */}}
{{- define "sleuth.replicaEdge" -}}
{{- $tls := ternary .Values.tls.replicas .Values.tls.clients .Values.router.enabled -}}
{{- $auth := ternary .Values.auth.replicas .Values.auth.clients .Values.router.enabled -}}
{{- dict "tls" $tls "auth" $auth
      "certificate" (include "sleuth.certificateSecret" (dict "root" . "tls" $tls "name" (ternary (include "sleuth.replicasName" .) (include "sleuth.fullName" .) .Values.router.enabled)))
    | toJson -}}
{{- end }}

{{- define "sleuth.clientEdge" -}}
{{- dict "tls" .Values.tls.clients "auth" .Values.auth.clients
      "certificate" (include "sleuth.certificateSecret" (dict "root" . "tls" .Values.tls.clients "name" (include "sleuth.fullName" .)))
    | toJson -}}
{{- end }}

{{/* The Secret with the certificate of one way; empty where it is plain. */}}
{{- define "sleuth.certificateSecret" -}}
{{- if .tls.secretName -}}
{{- .tls.secretName -}}
{{- else if .tls.certManager.enabled -}}
{{- .name }}-tls
{{- end -}}
{{- end }}

{{/* "true" where a component serves HTTP: whoever callers go to. Takes root and component. */}}
{{- define "sleuth.servesHttp" -}}
{{- and .root.Values.http.enabled (eq .component (ternary "router" "replica" .root.Values.router.enabled)) -}}
{{- end }}

{{/* What the chart knows better than its user: section, key, value, as JSON. Takes root, component, edge,
     deadline. */}}
{{- define "sleuth.derivedEdge" -}}
{{- $values := .root.Values -}}
{{- $server := dict
      "listen" (printf "%s:%d" $values.bindAddress (int $values.ports.grpc))
      "drain_lag_seconds" 0
      "drain_deadline_seconds" .deadline -}}
{{- $derived := dict "server" $server -}}
{{- $_ := set $derived "admin" (dict "listen" (printf "%s:%d" $values.bindAddress (int $values.ports.admin)) "insecure" true) -}}
{{- $http := dict -}}
{{- if eq (include "sleuth.servesHttp" .) "true" -}}
{{- $_ := set $http "listen" (printf "%s:%d" $values.bindAddress (int $values.ports.http)) -}}
{{- $_ := set $derived "http" $http -}}
{{- end -}}
{{- if .edge.certificate -}}
{{- $tls := dict "certificate" "/run/sleuth/tls/tls.crt" "key" "/run/sleuth/tls/tls.key" -}}
{{- if .edge.tls.clientCA.secretName -}}
{{- $_ := set $tls "client_ca" (printf "/run/sleuth/client-ca/%s" .edge.tls.clientCA.key) -}}
{{- end -}}
{{- $_ := set $derived "tls" $tls -}}
{{- else -}}
{{- $_ := set $server "insecure" true -}}
{{- if $http -}}
{{- $_ := set $http "insecure" true -}}
{{- end -}}
{{- end -}}
{{- if .edge.auth.secretName -}}
{{- $_ := set $derived "auth" (dict "credentials" (printf "/run/sleuth/credentials/%s" .edge.auth.key)) -}}
{{- end -}}
{{- toJson $derived -}}
{{- end }}

{{- define "sleuth.derivedForReplicas" -}}
{{- $edge := include "sleuth.replicaEdge" . | fromJson -}}
{{- $derived := include "sleuth.derivedEdge" (dict "root" . "component" "replica" "edge" $edge "deadline" .Values.drain.deadlineSeconds) | fromJson -}}
{{- if and .Values.router.enabled (not .Values.auth.replicas.secretName) -}}
{{- $_ := set $derived.server "tenant_header" "sleuth-tenant" -}}
{{- end -}}
{{- if ne .Values.model.source "image" -}}
{{- $_ := set $derived "model" (dict "folder" (list "/models" .Values.model.folder | compact | join "/")) -}}
{{- else if .Values.model.folder -}}
{{- $_ := set $derived "model" (dict "folder" .Values.model.folder) -}}
{{- end -}}
{{- toJson $derived -}}
{{- end }}

{{/* How much longer than a replica a router finishes what it has: an item that a replica gives back at
     its own deadline must still go elsewhere. */}}
{{- define "sleuth.routerDeadline" -}}{{ add .Values.drain.deadlineSeconds 15 }}{{- end }}

{{- define "sleuth.derivedForRouter" -}}
{{- $edge := include "sleuth.clientEdge" . | fromJson -}}
{{- $deadline := include "sleuth.routerDeadline" . | int64 -}}
{{- $derived := include "sleuth.derivedEdge" (dict "root" . "component" "router" "edge" $edge "deadline" $deadline) | fromJson -}}
{{- $replicas := include "sleuth.replicaEdge" . | fromJson -}}
{{- $secured := ternary "+https" "" (ne $replicas.certificate "") -}}
{{- $router := dict -}}
{{- if eq .Values.router.discovery "kubernetes" -}}
{{- $_ := set $router "replicas" (printf "kubernetes%s://%s/%s:grpc" $secured .Release.Namespace (include "sleuth.replicasName" .)) -}}
{{- else -}}
{{- $_ := set $router "replicas" (printf "dns%s://%s.%s:%d" $secured (include "sleuth.replicasHost" .) .Values.clusterDomain (int .Values.ports.grpc)) -}}
{{- end -}}
{{- if $secured -}}
{{- $_ := set $router "replica_ca" (printf "/run/sleuth/replica-ca/%s" .Values.tls.replicas.ca.key) -}}
{{- $_ := set $router "replica_server_name" (.Values.tls.replicas.serverName | default (include "sleuth.replicasHost" .)) -}}
{{- if .Values.tls.replicas.clientCertificate.secretName -}}
{{- $_ := set $router "replica_certificate" "/run/sleuth/router-tls/tls.crt" -}}
{{- $_ := set $router "replica_key" "/run/sleuth/router-tls/tls.key" -}}
{{- end -}}
{{- end -}}
{{- if .Values.auth.routerToken.secretName -}}
{{- $_ := set $router "replica_token_file" (printf "/run/sleuth/router-token/%s" .Values.auth.routerToken.key) -}}
{{- end -}}
{{- $_ := set $derived "router" $router -}}
{{- toJson $derived -}}
{{- end }}

{{/* Shared settings, then those of a pool or the router, then what is derived, as TOML. Takes root, own
     and derived. Numbers of values are floats by the time that templates see them; whole ones are
     written whole, as the server wants counts. */}}
{{- define "sleuth.toml" -}}
{{- $settings := deepCopy .root.Values.settings -}}
{{- include "sleuth.mergeInto" (list $settings (deepCopy .own)) -}}
{{- include "sleuth.mergeInto" (list $settings .derived) -}}
{{- range $section, $keys := $settings -}}
{{- range $key, $value := $keys -}}
{{- if kindIs "invalid" $value -}}
{{- $_ := unset $keys $key -}}
{{- else if kindIs "float64" $value -}}
{{- if eq $value (floor $value) -}}
{{- $_ := set $keys $key (int64 $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $keys -}}{{- $_ := unset $settings $section -}}{{- end -}}
{{- end -}}
{{- regexReplaceAll "(?m)^ +" (toToml $settings) "" | trim -}}
{{- end }}

{{- define "sleuth.replicaToml" -}}
{{- include "sleuth.toml" (dict "root" .root "own" (.pool.settings | default dict) "derived" (include "sleuth.derivedForReplicas" .root | fromJson)) -}}
{{- end }}

{{- define "sleuth.routerToml" -}}
{{- include "sleuth.toml" (dict "root" . "own" (.Values.router.settings | default dict) "derived" (include "sleuth.derivedForRouter" . | fromJson)) -}}
{{- end }}
