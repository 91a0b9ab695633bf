{{- define "matriarch.group" -}}
{{- get (dict "matriarch" "matriarch.dev" "cnpg" "postgresql.cnpg.io" "edb" "postgresql.k8s.enterprisedb.io") .Values.apiIdentity -}}
{{- end -}}

{{- define "matriarch.labelPrefix" -}}
{{- get (dict "matriarch" "matriarch.dev" "cnpg" "cnpg.io" "edb" "k8s.enterprisedb.io") .Values.apiIdentity -}}
{{- end -}}

{{- define "matriarch.environmentPrefix" -}}
{{- get (dict "matriarch" "MATRIARCH_" "cnpg" "CNPG_" "edb" "CNP_") .Values.apiIdentity -}}
{{- end -}}

{{- define "matriarch.leaderLease" -}}
{{- get (dict "matriarch" "matriarch-operator" "cnpg" "db9c8771.cnpg.io" "edb" "db9c8771.k8s.enterprisedb.io") .Values.apiIdentity -}}
{{- end -}}

{{- define "matriarch.agentSecret" -}}
{{- get (dict "matriarch" "matriarch" "cnpg" "cloudnative-pg" "edb" "postgresql-operator") .Values.apiIdentity }}-agent-server
{{- end -}}

{{- define "matriarch.name" -}}
{{- if eq .Values.apiIdentity "matriarch" -}}
matriarch-operator
{{- else -}}
matriarch-operator-{{ .Values.apiIdentity }}
{{- end -}}
{{- end -}}

{{- define "matriarch.labels" -}}
app.kubernetes.io/name: {{ include "matriarch.name" . }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "matriarch.apiServerPorts" -}}
{{- range .Values.networkPolicy.apiServerPorts }}
- port: {{ . }}
  protocol: TCP
{{- end }}
{{- end -}}
