{{/* What stands on every object. */}}
{{- define "tidegate.labels" -}}
app.kubernetes.io/part-of: tidegate
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* By what the controller's pods are found; a Deployment's cannot be changed. */}}
{{- define "tidegate.selector" -}}
app.kubernetes.io/name: tidegate-controller
{{- end }}

{{- define "tidegate.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end }}

{{/* How a webhook is asked: of the root, its values and its path. */}}
{{- define "tidegate.webhook" -}}
{{- $root := index . 0 }}{{ $values := index . 1 -}}
admissionReviewVersions: [v1]
sideEffects: None
matchPolicy: Equivalent
failurePolicy: {{ $values.failurePolicy }}
timeoutSeconds: {{ $values.timeoutSeconds }}
clientConfig:
  service: {name: tidegate-controller, namespace: {{ $root.Release.Namespace }}, port: 443, path: {{ index . 2 }}}
{{- end }}

{{/* Namespaces whose pods are never injected: what the cluster and the controller themselves need. */}}
{{- define "tidegate.spared" -}}
- {key: kubernetes.io/metadata.name, operator: NotIn, values: [kube-system, {{ .Release.Namespace }}]}
{{- end }}
