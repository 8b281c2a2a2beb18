{{- define "tabreel.peers" -}}
{{- /* (list $ .Values.networkPolicy.redis): pods of a namespace, and addresses */ -}}
{{- $ := index . 0 -}}
{{- with index . 1 -}}
{{- if or .namespace .podLabels }}
- {{ if .namespace }}namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .namespace }}}}
  {{ end }}podSelector:
    {{- if .podLabels }}
    matchLabels:
      {{- toYaml .podLabels | nindent 6 }}
    {{- else }} {}
    {{- end }}
{{- end }}
{{- range .cidrs }}
- ipBlock: {cidr: {{ . | quote }}}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "tabreel.dnsAndRedis" -}}
- to:
    {{- include "tabreel.peers" (list . .Values.networkPolicy.dns) | trim | nindent 4 }}
  ports: [{protocol: UDP, port: 53}, {protocol: TCP, port: 53}]
- to:
    {{- include "tabreel.peers" (list . .Values.networkPolicy.redis) | trim | nindent 4 }}
  ports: [{protocol: TCP, port: {{ .Values.networkPolicy.redis.port }}}]
{{- end -}}

{{- define "tabreel.storagePeers" -}}
{{- $storage := .Values.networkPolicy.storage -}}
{{- if or $storage.namespace $storage.podLabels $storage.cidrs }}
- to:
    {{- include "tabreel.peers" (list . $storage) | trim | nindent 4 }}
  ports: [{protocol: TCP, port: {{ $storage.port }}}]
{{- end }}
{{- end -}}

{{- define "tabreel.internet" -}}
{{- /* (list $ $private) */ -}}
{{- $ := index . 0 -}}
{{- $v4 := index . 1 -}}
{{- /* tunnels and documentation; 6to4 has an IPv4 address in it */ -}}
{{- $v6 := list "2001::/23" "2001:db8::/32" "2002::/16" -}}
{{- range $.Values.networkPolicy.clusterCidrs -}}
{{- if contains ":" . -}}{{- $v6 = append $v6 . -}}{{- else -}}{{- $v4 = append $v4 . -}}{{- end -}}
{{- end -}}
- ipBlock:
    cidr: 0.0.0.0/0
    except:
      {{- toYaml (uniq $v4) | nindent 6 }}
- ipBlock:
    # global unicast: neither unique local nor link-local addresses
    cidr: 2000::/3
    except:
      {{- toYaml (uniq $v6) | nindent 6 }}
{{- end -}}

{{- define "tabreel.monitors" -}}
# probes come from the node, which policies let through
- from:
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicy.monitoringNamespace }}}}
    - namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ .Values.networkPolicy.kedaNamespace }}}}
  ports: [{protocol: TCP, port: 9090}]
{{- end -}}
