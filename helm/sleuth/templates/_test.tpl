{{/* Where the test's authorities lie: a Secret and a key, as JSON; {} without TLS. */}}
{{- define "sleuth.testAuthorities" -}}
{{- $edge := include "sleuth.clientEdge" . | fromJson -}}
{{- if $edge.certificate -}}
{{- dict "secret" (.Values.test.ca.secretName | default $edge.certificate) "key" .Values.test.ca.key | toJson -}}
{{- else -}}
{}
{{- end -}}
{{- end }}

{{/* What the test lacks to be let in; empty where it can be made. */}}
{{- define "sleuth.testLacks" -}}
{{- if and .Values.tls.clients.clientCA.secretName (not .Values.test.clientCertificate.secretName) -}}
test.clientCertificate.secretName
{{- else if and .Values.auth.clients.secretName (not .Values.test.token.secretName) (not .Values.test.clientCertificate.secretName) -}}
test.token.secretName
{{- end -}}
{{- end }}
