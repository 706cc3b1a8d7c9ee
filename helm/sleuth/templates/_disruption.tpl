{{/* Takes root, component, pool, name and budget. */}}
{{- define "sleuth.podDisruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "sleuth.labels" . | nindent 4 }}
spec:
  {{- if or .budget.minAvailable (eq (toString .budget.minAvailable) "0") }}
  minAvailable: {{ .budget.minAvailable }}
  {{- else }}
  maxUnavailable: {{ .budget.maxUnavailable }}
  {{- end }}
  # A pod that is not ready holds up nobody.
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels: {{- include "sleuth.selector" . | nindent 6 }}
{{- end }}

{{/* How many of so many a number or a share is, a share rounded up. Takes of and count. */}}
{{- define "sleuth.countOf" -}}
{{- $text := toString .of -}}
{{- if hasSuffix "%" $text -}}
{{- divf (mulf (trimSuffix "%" $text | float64) (float64 .count)) 100 | ceil | int -}}
{{- else -}}
{{- int .of -}}
{{- end -}}
{{- end }}
