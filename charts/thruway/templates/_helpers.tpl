{{/* There is one Thruway in a cluster, so what it makes has fixed names; these labels find its pods. */}}
{{- define "thruway.selector" -}}
app.kubernetes.io/name: thruway
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "thruway.labels" -}}
{{ include "thruway.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "thruway.image" -}}
{{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
{{- end }}

{{/* The agent's configuration file. */}}
{{- define "thruway.config" -}}
{{- $config := deepCopy .Values.config }}
{{- if .Values.apiServer }}
{{- $_ := set $config "api-server" .Values.apiServer }}
{{- end }}
{{- toYaml $config }}
{{- end }}

{{/* Where and how the kubelet asks for PATH: (list . PATH). */}}
{{- define "thruway.probe" -}}
{{- $address := index (index . 0).Values.config "health-address" | default "0.0.0.0:10256" -}}
{{- $host := regexReplaceAll ":[0-9]+$" $address "" | trimAll "[]" -}}
httpGet:
  path: {{ index . 1 }}
  port: {{ regexFind "[0-9]+$" $address }}
  {{- if not (has $host (list "" "0.0.0.0" "::")) }}
  host: {{ $host | quote }}
  {{- end }}
periodSeconds: 10
timeoutSeconds: 5
{{- end }}

{{/* The port of the agents' metrics; fails if nobody could reach it. */}}
{{- define "thruway.metricsPort" -}}
{{- $address := index .Values.config "metrics-address" | default "127.0.0.1:10249" -}}
{{- if regexMatch `^(127\.|localhost:|\[::1\])` $address }}
{{- fail (printf "metrics: config.metrics-address is %s, which nobody but the node itself reaches: set it to 0.0.0.0:10249" $address) }}
{{- end }}
{{- regexFind "[0-9]+$" $address }}
{{- end }}
