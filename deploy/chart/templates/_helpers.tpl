{{- define "tabreel.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "tabreel.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "tabreel.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "tabreel.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* What selects a component's pods, and never changes. (list $ "edge") */}}
{{- define "tabreel.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: {{ include "tabreel.name" $ }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "tabreel.labels" -}}
{{- $ := index . 0 -}}
{{ include "tabreel.selector" . }}
app.kubernetes.io/part-of: tabreel
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* (list $ .Values.image.edge) */}}
{{- define "tabreel.image" -}}
{{- $ := index . 0 -}}
{{- $image := index . 1 -}}
{{- $name := printf "%s/%s" $.Values.image.registry $image.repository | trimPrefix "/" -}}
{{- if $image.digest -}}{{ $name }}@{{ $image.digest }}{{- else -}}{{ $name }}:{{ $image.tag | default $.Chart.AppVersion }}{{- end -}}
{{- end -}}

{{/* Mebibytes of a quantity: 512Mi, 2Gi, 1G, 1073741824. */}}
{{- define "tabreel.mebibytes" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9]+" $text | int64 -}}
{{- $unit := regexReplaceAll "^[0-9]+" $text "" -}}
{{- if eq $unit "Ti" -}}{{ mul $number 1048576 }}
{{- else if eq $unit "Gi" -}}{{ mul $number 1024 }}
{{- else if eq $unit "Mi" -}}{{ $number }}
{{- else if eq $unit "Ki" -}}{{ div $number 1024 }}
{{- else if eq $unit "G" -}}{{ div (mul $number 1000000000) 1048576 }}
{{- else if eq $unit "M" -}}{{ div (mul $number 1000000) 1048576 }}
{{- else if eq $unit "" -}}{{ div $number 1048576 }}
{{- else -}}{{ fail (printf "%s is no amount of memory that this chart can reckon with: write it as 512Mi or 2Gi" $text) }}
{{- end -}}
{{- end -}}

{{/* Of /dev/shm, in MiB. */}}
{{- define "tabreel.worker.shm" -}}
{{- mul (int .Values.worker.slots) (include "tabreel.mebibytes" .Values.worker.shmPerSlot | int64) -}}
{{- end -}}

{{/* What a worker's container needs in MiB: browsers and processes, /dev/shm, and the worker itself. */}}
{{- define "tabreel.worker.needed" -}}
{{- $slots := int .Values.worker.slots -}}
{{- $shm := ternary (include "tabreel.worker.shm" . | int64) 0 (eq .Values.worker.shm "require") -}}
{{- add (mul $slots (include "tabreel.mebibytes" .Values.worker.memoryPerSlot | int64)) $shm (include "tabreel.mebibytes" .Values.worker.ownMemory | int64) -}}
{{- end -}}

{{- define "tabreel.worker.memory" -}}
{{- .Values.worker.resources.memory | default (printf "%sMi" (include "tabreel.worker.needed" .)) -}}
{{- end -}}

{{- define "tabreel.worker.cpu" -}}
{{- .Values.worker.resources.cpu | default (mul (int .Values.worker.slots) (int .Values.worker.cpuPerSlot)) -}}
{{- end -}}

{{/* Hosts that callers may use: those of the rules, and what was added. */}}
{{- define "tabreel.allowedHosts" -}}
{{- concat .Values.hosts .Values.allowedHosts | uniq | join "," -}}
{{- end -}}

{{- define "tabreel.address" -}}
{{- if .Values.publicUrl -}}{{ .Values.publicUrl }}{{- else if .Values.hosts -}}https://{{ first .Values.hosts }}{{- end -}}
{{- end -}}

{{- define "tabreel.isFile" -}}
{{- if hasPrefix "file:" .Values.storage.url -}}yes{{- end -}}
{{- end -}}

{{- define "tabreel.isShared" -}}
{{- if eq .Values.storage.volume.accessMode "ReadWriteMany" -}}yes{{- end -}}
{{- end -}}

{{- define "tabreel.claim" -}}
{{- .Values.storage.volume.existingClaim | default (printf "%s-recordings" (include "tabreel.fullname" .)) -}}
{{- end -}}

{{- define "tabreel.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}{{ .Values.serviceAccount.name | default (include "tabreel.fullname" .) }}{{- else -}}{{ .Values.serviceAccount.name | default "default" }}{{- end -}}
{{- end -}}

{{/* What all pods have. No token of Kubernetes' API; no variables of every service around, which settings could be mistaken for. */}}
{{- define "tabreel.pod" -}}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "tabreel.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
{{- end -}}

{{- define "tabreel.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Pods of the edge's image: nothing in them needs more than the runtime's own profile. */}}
{{- define "tabreel.edgePodSecurity" -}}
{{ include "tabreel.podSecurity" . }}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Settings of edge, finaliser and worker. */}}
{{- define "tabreel.commonEnv" -}}
- name: REDIS_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.redis.existingSecret }}, key: {{ .Values.redis.urlKey }}}}
{{- if or .Values.redis.ca.configMap .Values.redis.ca.secret }}
- {name: REDIS_CA, value: /etc/tabreel/redis-ca/{{ .Values.redis.ca.key }}}
{{- end }}
{{- if .Values.redis.clientCertificateSecret }}
- {name: REDIS_CERT, value: /etc/tabreel/redis-client/tls.crt}
- {name: REDIS_KEY, value: /etc/tabreel/redis-client/tls.key}
{{- end }}
- {name: QUEUE_PREFIX, value: {{ .Values.redis.queuePrefix | quote }}}
- {name: LOG_LEVEL, value: {{ .Values.logLevel }}}
- {name: HEALTH_PORT, value: "9090"}
- {name: OUTBOUND_ALLOW, value: {{ join "," .Values.outboundAllow | quote }}}
- name: SECRETS_KEY
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.existingSecret }}, key: {{ .Values.secrets.secretsKeyKey }}}}
{{- end -}}

{{/* Settings of edge and finaliser. */}}
{{- define "tabreel.storageEnv" -}}
- name: TOKEN_SECRET
  valueFrom: {secretKeyRef: {name: {{ .Values.secrets.existingSecret }}, key: {{ .Values.secrets.tokenSecretKey }}}}
- {name: STORAGE_URL, value: {{ .Values.storage.url | quote }}}
{{- with .Values.storage.minFreeSpace }}
- {name: MIN_FREE_SPACE, value: {{ . | quote }}}
{{- end }}
{{- if not (include "tabreel.isFile" .) }}
{{- with .Values.storage.s3 }}
- {name: AWS_REGION, value: {{ .region | quote }}}
{{- with .endpoint }}
- {name: S3_ENDPOINT, value: {{ . | quote }}}
{{- end }}
{{- with .requestChecksumCalculation }}
- {name: AWS_REQUEST_CHECKSUM_CALCULATION, value: {{ . | quote }}}
{{- end }}
{{- if .existingSecret }}
- name: AWS_ACCESS_KEY_ID
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .accessKeyIdKey }}}}
- name: AWS_SECRET_ACCESS_KEY
  valueFrom: {secretKeyRef: {name: {{ .existingSecret }}, key: {{ .secretAccessKeyKey }}}}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A file of a ConfigMap or Secret as a volume. (dict "name" "redis-ca" "from" .Values.redis.ca) */}}
{{- define "tabreel.fileVolume" -}}
{{- if .from.secret }}
- name: {{ .name }}
  secret: {secretName: {{ .from.secret }}, items: [{key: {{ .from.key }}, path: {{ .from.key }}}]}
{{- else if .from.configMap }}
- name: {{ .name }}
  configMap: {name: {{ .from.configMap }}, items: [{key: {{ .from.key }}, path: {{ .from.key }}}]}
{{- end }}
{{- end -}}

{{- define "tabreel.redisVolumes" -}}
{{- include "tabreel.fileVolume" (dict "name" "redis-ca" "from" .Values.redis.ca) }}
{{- with .Values.redis.clientCertificateSecret }}
- name: redis-client
  secret: {secretName: {{ . }}}
{{- end }}
{{- end -}}

{{- define "tabreel.redisMounts" -}}
{{- if or .Values.redis.ca.configMap .Values.redis.ca.secret }}
- {name: redis-ca, mountPath: /etc/tabreel/redis-ca, readOnly: true}
{{- end }}
{{- if .Values.redis.clientCertificateSecret }}
- {name: redis-client, mountPath: /etc/tabreel/redis-client, readOnly: true}
{{- end }}
{{- end -}}

{{/* Edge and finaliser, where their volume is one node's. */}}
{{- define "tabreel.besideEdge" -}}
podAffinity:
  requiredDuringSchedulingIgnoredDuringExecution:
    - topologyKey: kubernetes.io/hostname
      labelSelector:
        matchLabels:
          {{- include "tabreel.selector" (list . "edge") | nindent 10 }}
{{- end -}}

{{- define "tabreel.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 2
  timeoutSeconds: 3
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 5
  timeoutSeconds: 3
  failureThreshold: 2
{{- end -}}
