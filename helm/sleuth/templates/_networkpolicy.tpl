{{- define "sleuth.callersIngress" -}}
- from:
    {{- with .Values.networkPolicy.callers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    # `helm test`.
    - podSelector:
        matchLabels: {{- include "sleuth.selector" (dict "root" . "component" "test") | nindent 10 }}
  ports:
    - port: {{ $.Values.ports.grpc }}
    {{- if .Values.http.enabled }}
    - port: {{ .Values.ports.http }}
    {{- end }}
{{- with .Values.networkPolicy.extraIngress }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sleuth.prometheusIngress" -}}
{{- with .Values.networkPolicy.prometheus -}}
- from: {{- toYaml . | nindent 4 }}
  ports:
    - port: {{ $.Values.ports.admin }}
{{- end }}
{{- end }}

{{- define "sleuth.commonEgress" -}}
- to: {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- with .Values.networkPolicy.otlp.to }}
- to: {{- toYaml . | nindent 4 }}
  ports:
    - port: {{ $.Values.networkPolicy.otlp.port }}
{{- end }}
{{- end }}
