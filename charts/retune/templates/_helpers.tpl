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

{{/* Where everything of the release lives that is not cluster-wide. */}}
{{- define "retune.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{- define "retune.labels" -}}
{{- include "retune.labelsWith" (list . dict) }}
{{- end }}

{{/* The labels of every object, and more of its own: the root context and a dict. Nobody's labels replace the chart's. */}}
{{- define "retune.labelsWith" -}}
{{- $root := index . 0 }}
{{- $own := include "retune.selectorLabels" $root | fromYaml }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_") }}
{{- $_ := set $own "app.kubernetes.io/version" $root.Chart.AppVersion }}
{{- $_ := set $own "app.kubernetes.io/managed-by" $root.Release.Service }}
{{- toYaml (merge $own (index . 1) $root.Values.commonLabels) }}
{{- end }}

{{/* Secrets to pull the operator's image with: the chart's own, else those that a parent chart gives to all. */}}
{{- define "retune.imagePullSecrets" -}}
{{- $global := (.Values.global | default dict).imagePullSecrets }}
{{- with .Values.imagePullSecrets | default $global }}
{{- toYaml . }}
{{- end }}
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

{{/* The policy is cluster-wide, so its name says which release it belongs to. */}}
{{- define "retune.admissionPolicyName" -}}
{{ include "retune.fullname" . }}.{{ include "retune.namespace" . }}
{{- end }}

{{/*
Not empty where the policy about authors is wanted and the API server serves its kind. Without a server to ask, as in
`helm template`, only groups are known and no kinds; then the kind counts as served, because every version that the chart
supports has it.
*/}}
{{- define "retune.admissionPolicyServed" -}}
{{- $versions := .Capabilities.APIVersions }}
{{- $asked := $versions.Has "v1/Pod" }}
{{- if and .Values.admissionPolicy.enabled (or (not $asked) ($versions.Has "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy")) -}}
true
{{- end }}
{{- end }}

{{/* The namespaces whose Jobs are closed in, as a JSON list. */}}
{{- define "retune.closedNamespaces" -}}
{{- $jobs := .Values.networkPolicy.jobs }}
{{- $namespaces := $jobs.namespaces | default .Values.watchNamespaces }}
{{- $wanted := ne (toString $jobs.enabled) "false" }}
{{- if and (eq (toString $jobs.enabled) "true") (not $namespaces) }}
{{- fail "networkPolicy.jobs.enabled needs networkPolicy.jobs.namespaces or watchNamespaces: a NetworkPolicy counts in its own namespace only" }}
{{- end }}
{{- ternary $namespaces list $wanted | toJson }}
{{- end }}

{{/* Names are asked for at port 53; the DNS pods of OpenShift listen at 5353. */}}
{{- define "retune.dnsEgress" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    - {port: 5353, protocol: UDP}
    - {port: 5353, protocol: TCP}
{{- end }}

{{/* Where closed Jobs may find the servers that hold models, data and stores: one rule, or none. */}}
{{- define "retune.serverEgress" -}}
{{- with .Values.networkPolicy.jobs.ports -}}
- ports:
    {{- range . }}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
  to:
    - namespaceSelector: {}
    {{- range $.Values.networkPolicy.jobs.cidrs }}
    - ipBlock:
        cidr: {{ . }}
        {{- if eq . "0.0.0.0/0" }}
        except: [169.254.0.0/16, 100.100.100.200/32, 168.63.129.16/32, 192.0.0.192/32]
        {{- else if eq . "::/0" }}
        except: ["fe80::/10", "fd00:ec2::254/128"]
        {{- end }}
    {{- end }}
{{- end }}
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
  {{- if .Values.canary.enabled }}
  # Creating and deleting are for the canary beside a target, which strategies Canary and BlueGreen need.
  verbs: [get, list, watch, patch, create, delete]
  {{- else }}
  verbs: [get, list, watch, patch]
  {{- end }}
{{- if and .Values.canary.httpRoutes (not .Values.canary.enabled) }}
{{- fail "canary.httpRoutes needs canary.enabled: a route shares requests with a canary" }}
{{- end }}
{{- if .Values.canary.enabled }}
# Which Services share requests between a target and its canary, and who scales the target meanwhile.
- apiGroups: [""]
  resources: [services]
  {{- if .Values.canary.httpRoutes }}
  # Creating and deleting are for the Service of a canary that gets its share by a route.
  verbs: [list, create, delete]
  {{- else }}
  verbs: [list]
  {{- end }}
- apiGroups: [autoscaling]
  resources: [horizontalpodautoscalers]
  verbs: [list]
{{- end }}
{{- if .Values.canary.httpRoutes }}
- apiGroups: [gateway.networking.k8s.io]
  resources: [httproutes]
  verbs: [get, patch]
{{- end }}
{{- if has "StatefulSet" .Values.targets.kinds }}
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, patch]
# A StatefulSet never replaces a broken pod, so a version that broke one could not be taken back.
- apiGroups: [""]
  resources: [pods]
  verbs: [delete]
{{- end }}
{{- if has "InferenceService" .Values.targets.kinds }}
- apiGroups: [serving.kserve.io]
  resources: [inferenceservices]
  verbs: [get, list, watch, patch]
{{- end }}
{{- if has "Rollout" .Values.targets.kinds }}
- apiGroups: [argoproj.io]
  resources: [rollouts]
  verbs: [get, list, watch, patch]
{{- else if .Capabilities.APIVersions.Has "argoproj.io/v1alpha1/Rollout" }}
# Whether a Rollout takes its pods from a target's template, so that the target's own replicas mean nothing.
- apiGroups: [argoproj.io]
  resources: [rollouts]
  verbs: [list]
{{- end }}
{{- with .Values.targets.configMaps }}
# The key that agents follow, in ConfigMaps of these names (spec.target.injection of type ConfigMap).
- apiGroups: [""]
  resources: [configmaps]
  {{- if not (has "*" .) }}
  resourceNames: {{ toJson . }}
  {{- end }}
  verbs: [get, patch]
{{- end }}
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, create, update]
- apiGroups: [""]
  resources: [events]
  # Why a Job's controller cannot create its pods is told nowhere else.
  verbs: [create, list]
# Why a Job waits in a queue of Kueue's (spec.execution.queueName).
- apiGroups: [kueue.x-k8s.io]
  resources: [workloads]
  verbs: [list]
{{- end }}
