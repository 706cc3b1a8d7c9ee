{{/* The Secrets that the test mounts at /run/sleuth: name, secret, keys, as JSON. */}}
{{- define "sleuth.testFiles" -}}
{{- $test := .Values.test -}}
{{- $edge := include "sleuth.clientEdge" . | fromJson -}}
{{- $files := list -}}
{{- if $edge.certificate -}}
{{- $files = append $files (dict "name" "ca" "secret" ($test.ca.secretName | default $edge.certificate) "keys" (list $test.ca.key)) -}}
{{- end -}}
{{- if $test.token.secretName -}}
{{- $files = append $files (dict "name" "token" "secret" $test.token.secretName "keys" (list $test.token.key)) -}}
{{- end -}}
{{- if $test.clientCertificate.secretName -}}
{{- $files = append $files (dict "name" "client-tls" "secret" $test.clientCertificate.secretName "keys" (list "tls.crt" "tls.key")) -}}
{{- end -}}
{{- dict "files" $files "secured" (ne $edge.certificate "") | toJson -}}
{{- end }}

{{/* What the test lacks to be let in; empty where it can be made. */}}
{{- define "sleuth.testLacks" -}}
{{- if and .Values.tls.clients.clientCA.secretName (not .Values.test.clientCertificate.secretName) -}}
test.clientCertificate.secretName
{{- else if and .Values.auth.clients.secretName (not .Values.test.token.secretName) (not .Values.test.clientCertificate.secretName) -}}
test.token.secretName
{{- end -}}
{{- end }}
