{{- define "retune.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "retune.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains (include "retune.name" .) .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "retune.name" .) | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "retune.selectorLabels" -}}
app.kubernetes.io/name: {{ include "retune.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "retune.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "retune.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "retune.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "retune.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The address of an image: a dict of its values and the root context. */}}
{{- define "retune.image" -}}
{{- $image := index . 0 -}}
{{- $root := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end }}
{{- end }}

{{/* Prometheus servers and their token files, as name=value lists. */}}
{{- define "retune.prometheus" -}}
{{- $found := list }}
{{- range .Values.prometheus.servers }}{{ $found = append $found (printf "%s=%s" .name .url) }}{{ end }}
{{- join "," $found }}
{{- end }}

{{- define "retune.prometheusTokens" -}}
{{- $found := list }}
{{- range .Values.prometheus.servers }}
{{- if .tokenSecret }}{{ $found = append $found (printf "%s=/etc/retune/prometheus/%s/token" .name .name) }}{{ end }}
{{- end }}
{{- join "," $found }}
{{- end }}

{{- define "retune.prometheusNamespaces" -}}
{{- $found := list }}
{{- range .Values.prometheus.servers }}
{{- if .namespaces }}{{ $found = append $found (printf "%s=%s" .name (join " " .namespaces)) }}{{ end }}
{{- end }}
{{- join "," $found }}
{{- end }}

{{- define "retune.prometheusParameters" -}}
{{- $found := list }}
{{- range .Values.prometheus.servers }}
{{- if .namespaceParameter }}{{ $found = append $found (printf "%s=%s" .name .namespaceParameter) }}{{ end }}
{{- end }}
{{- join "," $found }}
{{- end }}

{{/* Exactly what the operator does, and nothing else: no Secrets, no exec, no pods or workloads of its own making but Jobs. */}}
{{- define "retune.rules" -}}
- apiGroups: [retune.dev]
  resources: [modeloptimizations]
  verbs: [get, list, watch, patch]
- apiGroups: [retune.dev]
  resources: [modeloptimizations/status]
  verbs: [patch]
# For clusters that let only those block an owner's deletion who may change its finalizers.
- apiGroups: [retune.dev]
  resources: [modeloptimizations/finalizers]
  verbs: [update]
- apiGroups: [retune.dev]
  resources: [optimizationruns]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [retune.dev]
  resources: [optimizationruns/status]
  verbs: [patch]
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, patch]
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
- apiGroups: [""]
  resources: [events]
  # Why a Job's controller cannot create its pods is told nowhere else.
  verbs: [create, list]
{{- end }}
