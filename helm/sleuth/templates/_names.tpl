{{- define "sleuth.chartName" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters, so that suffixes fit into the 63 of a label; two long names that begin alike
     stay apart by a digest. */}}
{{- define "sleuth.fullName" -}}
{{- $name := .Values.fullnameOverride -}}
{{- if not $name -}}
{{- $chart := include "sleuth.chartName" . -}}
{{- $name = ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) -}}
{{- end -}}
{{- include "sleuth.fit" (list 40 $name) -}}
{{- end }}

{{/* A name within a limit; what is longer ends in a digest. */}}
{{- define "sleuth.fit" -}}
{{- $limit := index . 0 -}}
{{- $name := index . 1 -}}
{{- if gt (len $name) $limit -}}
{{- printf "%s-%s" ($name | trunc (int (sub $limit 9)) | trimSuffix "-" | trimSuffix ".") ($name | sha256sum | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end }}

{{- define "sleuth.replicasName" -}}{{ include "sleuth.fullName" . }}-replicas{{- end }}
{{- define "sleuth.routerName" -}}{{ include "sleuth.fullName" . }}-router{{- end }}

{{- define "sleuth.replicasAccount" -}}
{{- with .Values.serviceAccount -}}
{{- .name | default (ternary (include "sleuth.replicasName" $) "default" .create) -}}
{{- end -}}
{{- end }}

{{- define "sleuth.routerAccount" -}}
{{- with .Values.router.serviceAccount -}}
{{- .name | default (ternary (include "sleuth.routerName" $) "default" .create) -}}
{{- end -}}
{{- end }}

{{/* "true" where the router's pods get the account's token. */}}
{{- define "sleuth.routerToken" -}}
{{- $set := .Values.router.serviceAccount.automountToken -}}
{{- ternary (eq .Values.router.discovery "kubernetes") $set (kindIs "invalid" $set) -}}
{{- end }}

{{- define "sleuth.replicasHost" -}}
{{ include "sleuth.replicasName" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "sleuth.clientHost" -}}
{{ include "sleuth.fullName" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "sleuth.priorityClassName" -}}
{{- with .Values.priorityClass -}}
{{- if .name -}}
{{- .name -}}
{{- else if .create -}}
{{- list $.Release.Namespace (include "sleuth.fullName" $) | compact | join "." | list 63 | include "sleuth.fit" -}}
{{- end -}}
{{- end -}}
{{- end }}

{{/* What tells pods apart, and nothing that may change. Takes root, component and, of replicas, pool. */}}
{{- define "sleuth.selector" -}}
app.kubernetes.io/name: {{ include "sleuth.chartName" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
sleuth/pool: {{ . }}
{{- end }}
{{- end }}

{{/* Of pods: without the chart's version, which would make new pods for nothing. */}}
{{- define "sleuth.podLabels" -}}
{{- $labels := include "sleuth.selector" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/version" .root.Chart.AppVersion -}}
{{- merge $labels (deepCopy .root.Values.commonLabels) | toYaml -}}
{{- end }}

{{- define "sleuth.labels" -}}
{{- $labels := include "sleuth.podLabels" . | fromYaml -}}
{{- $_ := set $labels "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- $_ := set $labels "helm.sh/chart" (printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_")) -}}
{{- toYaml $labels -}}
{{- end }}

{{/* Takes root, image (of a pool, may be empty) and device. */}}
{{- define "sleuth.image" -}}
{{- $own := .image | default dict -}}
{{- $image := .root.Values.image -}}
{{- $repository := $own.repository | default $image.repository -}}
{{- $digest := $own.digest | default (ternary $image.digest "" (ne .device "gpu")) -}}
{{- if $digest -}}
{{- printf "%s@%s" $repository $digest -}}
{{- else -}}
{{- $suffix := hasKey $own "tagSuffix" | ternary $own.tagSuffix (ternary .root.Values.gpu.imageTagSuffix "" (eq .device "gpu")) -}}
{{- printf "%s:%s%s" $repository ($own.tag | default $image.tag | default .root.Chart.AppVersion) $suffix -}}
{{- end -}}
{{- end }}
