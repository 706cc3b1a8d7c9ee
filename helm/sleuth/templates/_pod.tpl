{{/* One probe. Takes path and times. */}}
{{- define "sleuth.probe" -}}
httpGet:
  path: {{ .path }}
  port: admin
periodSeconds: {{ .times.periodSeconds }}
failureThreshold: {{ .times.failureThreshold }}
timeoutSeconds: {{ .times.timeoutSeconds }}
{{- end }}

{{/* A volume of some keys of a Secret, and no others: beside authorities a key may lie. Takes secret and keys. */}}
{{- define "sleuth.secretVolume" -}}
secret:
  secretName: {{ .secret }}
  # Read by the group of fsGroup.
  defaultMode: 288
  items:
    {{- range .keys }}
    - key: {{ . }}
      path: {{ . }}
    {{- end }}
{{- end }}

{{/* The Secrets that a pod mounts at /run/sleuth: name, secret, keys, as JSON. Takes root and component. */}}
{{- define "sleuth.files" -}}
{{- $root := .root -}}
{{- $replica := eq .component "replica" -}}
{{- $pair := list "tls.crt" "tls.key" -}}
{{- $edge := include (ternary "sleuth.replicaEdge" "sleuth.clientEdge" $replica) $root | fromJson -}}
{{- $secrets := list
      (dict "name" "tls" "secret" $edge.certificate "keys" $pair)
      (dict "name" "client-ca" "secret" $edge.tls.clientCA.secretName "keys" (list $edge.tls.clientCA.key))
      (dict "name" "credentials" "secret" $edge.auth.secretName "keys" (list $edge.auth.key)) -}}
{{- if not $replica -}}
{{- $replicas := include "sleuth.replicaEdge" $root | fromJson -}}
{{- $token := $root.Values.auth.routerToken -}}
{{- if $replicas.certificate -}}
{{- $tls := $root.Values.tls.replicas -}}
{{- $secrets = append $secrets (dict "name" "replica-ca" "secret" ($tls.ca.secretName | default $replicas.certificate) "keys" (list $tls.ca.key)) -}}
{{- $secrets = append $secrets (dict "name" "router-tls" "secret" $tls.clientCertificate.secretName "keys" $pair) -}}
{{- end -}}
{{- $secrets = append $secrets (dict "name" "router-token" "secret" $token.secretName "keys" (list $token.key)) -}}
{{- end -}}
{{- $files := list -}}
{{- range $secrets -}}
{{- if .secret -}}{{- $files = append $files . -}}{{- end -}}
{{- end -}}
{{- dict "files" $files | toJson -}}
{{- end }}

{{/* Where a model comes from, beside the image: a volume. */}}
{{- define "sleuth.modelVolume" -}}
{{- $model := .Values.model -}}
name: models
{{- if eq $model.source "claim" }}
persistentVolumeClaim:
  claimName: {{ $model.claim.name }}
  readOnly: true
{{- else if eq $model.source "imageVolume" }}
image:
  reference: {{ $model.imageVolume.reference }}
  pullPolicy: {{ $model.imageVolume.pullPolicy }}
{{- else }}
emptyDir:
  {{- with $model.initContainer.sizeLimit }}
  sizeLimit: {{ . }}
  {{- else }} {}
  {{- end }}
{{- end }}
{{- end }}

{{- define "sleuth.modelContainer" -}}
{{- $from := .Values.model.initContainer -}}
name: model
image: {{ $from.image }}
imagePullPolicy: {{ $from.pullPolicy }}
{{- with $from.command }}
command: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $from.args }}
args: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $from.env }}
env: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $from.envFrom }}
envFrom: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $from.resources }}
resources: {{ toYaml . | nindent 2 }}
{{- end }}
securityContext: {{ toYaml .Values.securityContext | nindent 2 }}
volumeMounts:
  - name: models
    mountPath: /models
  {{- with $from.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* Takes root, selector and part. */}}
{{- define "sleuth.spread" -}}
{{- $selector := .selector | fromYaml -}}
{{- $constraints := deepCopy .part.topologySpreadConstraints -}}
{{- if not $constraints -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" -}}
{{- $constraints = append $constraints (dict "maxSkew" 1 "topologyKey" . "whenUnsatisfiable" "ScheduleAnyway" "matchLabelKeys" (list "pod-template-hash")) -}}
{{- end -}}
{{- end -}}
{{- range $constraints -}}
{{- if not (hasKey . "labelSelector") -}}
{{- $_ := set . "labelSelector" (dict "matchLabels" $selector) -}}
{{- end -}}
{{- end -}}
{{- toYaml $constraints -}}
{{- end }}

{{/* What a container asks of the node: a gpu pool's GPUs are added. */}}
{{- define "sleuth.resources" -}}
{{- $resources := deepCopy (.part.resources | default dict) -}}
{{- if eq .device "gpu" -}}
{{- $limits := $resources.limits | default dict -}}
{{- $_ := set $limits .root.Values.gpu.resourceName (int .part.gpus) -}}
{{- $_ := set $resources "limits" $limits -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}

{{/* The one container of a pod. Takes what the pod takes, and files, models and device. */}}
{{- define "sleuth.container" -}}
{{- $root := .root -}}
{{- $part := .part -}}
name: {{ .component }}
image: {{ include "sleuth.image" (dict "root" $root "image" $part.image "device" .device) }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
args: [{{ .command }}, --config, /etc/sleuth/sleuth.toml]
{{- with $part.extraEnv }}
env: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.extraEnvFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - name: grpc
    containerPort: {{ $root.Values.ports.grpc }}
  - name: admin
    containerPort: {{ $root.Values.ports.admin }}
  {{- if eq (include "sleuth.servesHttp" .) "true" }}
  - name: http
    containerPort: {{ $root.Values.ports.http }}
  {{- end }}
startupProbe: {{- include "sleuth.probe" (dict "path" (ternary "/startupz" "/livez" (eq .component "replica")) "times" $part.probes.startup) | nindent 2 }}
readinessProbe: {{- include "sleuth.probe" (dict "path" "/readyz" "times" $part.probes.readiness) | nindent 2 }}
livenessProbe: {{- include "sleuth.probe" (dict "path" "/livez" "times" $part.probes.liveness) | nindent 2 }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ $root.Values.drain.lagSeconds }}
resources: {{- include "sleuth.resources" (dict "root" $root "part" $part "device" .device) | nindent 2 }}
securityContext: {{- toYaml $root.Values.securityContext | nindent 2 }}
volumeMounts:
  - name: config
    mountPath: /etc/sleuth
    readOnly: true
  {{- range .files }}
  - name: {{ .name }}
    mountPath: /run/sleuth/{{ .name }}
    readOnly: true
  {{- end }}
  {{- if .models }}
  - name: models
    mountPath: /models
    readOnly: true
  {{- end }}
  {{- with $part.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{/* A pod of replicas or of the router. Takes root, component, pool (its name), part (its values),
     command, toml, config (the ConfigMap), account, token (whether it is mounted) and deadline. */}}
{{- define "sleuth.podTemplate" -}}
{{- $root := .root -}}
{{- $part := .part -}}
{{- $device := $part.device | default "cpu" -}}
{{- $selector := include "sleuth.selector" . -}}
{{- $files := (include "sleuth.files" . | fromJson).files -}}
{{- $models := and (eq .component "replica") (ne $root.Values.model.source "image") -}}
metadata:
  labels: {{- merge (include "sleuth.podLabels" . | fromYaml) (deepCopy $part.podLabels) | toYaml | nindent 4 }}
  annotations:
    # A change of the settings makes new pods.
    checksum/config: {{ .toml | sha256sum }}
    {{- with $part.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ .account }}
  automountServiceAccountToken: {{ .token }}
  enableServiceLinks: false
  # The sleep before SIGTERM, what may still be finished, and 15 s to end.
  terminationGracePeriodSeconds: {{ add $root.Values.drain.lagSeconds .deadline 15 }}
  securityContext: {{- toYaml $root.Values.podSecurityContext | nindent 4 }}
  {{- with $root.Values.imagePullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $part.priorityClassName | default (include "sleuth.priorityClassName" $root) }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $part.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  {{- with $part.schedulerName }}
  schedulerName: {{ . }}
  {{- end }}
  {{- with $part.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with ternary (concat $root.Values.gpu.tolerations $part.tolerations) $part.tolerations (eq $device "gpu") }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $part.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints: {{- include "sleuth.spread" (dict "selector" $selector "part" $part) | nindent 4 }}
  {{- if and $models (eq $root.Values.model.source "initContainer") }}
  initContainers:
    - {{- include "sleuth.modelContainer" $root | nindent 6 }}
  {{- end }}
  containers:
    - {{- include "sleuth.container" (merge (dict "files" $files "models" $models "device" $device) .) | nindent 6 }}
  volumes:
    - name: config
      configMap:
        name: {{ .config }}
    {{- range $files }}
    - name: {{ .name }}
      {{- include "sleuth.secretVolume" . | nindent 6 }}
    {{- end }}
    {{- if $models }}
    - {{- include "sleuth.modelVolume" $root | nindent 6 }}
    {{- end }}
    {{- with $part.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* How long a rollout of a pool may stand still: a start, and some. Takes part. */}}
{{- define "sleuth.progressDeadline" -}}
{{- $start := .probes.startup -}}
{{- add (mul $start.periodSeconds $start.failureThreshold) .minReadySeconds 120 -}}
{{- end }}

{{/* A router is ready once a replica is, so a first rollout takes as long as the slowest pool's. */}}
{{- define "sleuth.routerProgressDeadline" -}}
{{- $longest := include "sleuth.progressDeadline" .Values.router | int -}}
{{- range include "sleuth.pools" . | fromJson -}}
{{- $longest = max $longest (include "sleuth.progressDeadline" . | int) -}}
{{- end -}}
{{- add $longest 60 -}}
{{- end }}
