{{/* The pod of a worker, of a Deployment or of Jobs. */}}
{{- define "tabreel.workerPod" -}}
{{- $worker := .Values.worker -}}
{{- $slots := int $worker.slots -}}
metadata:
  labels:
    {{- include "tabreel.labels" (list . "worker") | nindent 4 }}
  annotations:
    # a node is not taken away under a recording
    cluster-autoscaler.kubernetes.io/safe-to-evict: "false"
    karpenter.sh/do-not-disrupt: "true"
    {{- with $worker.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  {{- include "tabreel.pod" . | nindent 2 }}
  securityContext:
    {{- include "tabreel.podSecurity" . | nindent 4 }}
    {{- if ne $worker.sandbox "on" }}
    seccompProfile: {type: RuntimeDefault}
    {{- else if eq $worker.seccompProfile "Unconfined" }}
    seccompProfile: {type: Unconfined}
    {{- else }}
    seccompProfile: {type: Localhost, localhostProfile: {{ $worker.seccompProfile }}}
    {{- end }}
    {{- with $worker.appArmorProfile }}
    appArmorProfile: {type: {{ . }}}
    {{- end }}
  # recordings end by themselves for worker.drainTimeout, then what waits is delivered
  terminationGracePeriodSeconds: {{ add (int $worker.drainTimeout) 300 }}
  {{- with $worker.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
    - name: worker
      image: {{ include "tabreel.image" (list . .Values.image.worker) }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [worker/main.ts]
      securityContext:
        {{- include "tabreel.containerSecurity" . | nindent 8 }}
      ports:
        - {name: health, containerPort: 9090}
      env:
        {{- include "tabreel.commonEnv" . | nindent 8 }}
        - {name: SLOTS, value: {{ $slots | quote }}}
        - {name: SHM, value: {{ $worker.shm }}}
        - {name: BROWSER_MEMORY_LIMIT, value: {{ printf "%dM" (sub (include "tabreel.mebibytes" $worker.memoryPerSlot | int64) 256) | quote }}}
        - {name: DRAIN_TIMEOUT, value: {{ $worker.drainTimeout | quote }}}
        - {name: CHROMIUM_SANDBOX, value: {{ $worker.sandbox | quote }}}
        - {name: CAPTURE_ENGINE, value: {{ $worker.captureEngine }}}
        - {name: ADMISSION, value: {{ $worker.admission }}}
        - {name: SELF_TEST, value: {{ $worker.selfTest | quote }}}
        - {name: SPOOL_DIR, value: /spool}
        - {name: SPOOL_LIMIT, value: {{ $worker.spoolLimit | quote }}}
        - {name: ALLOW_INSECURE_WS, value: {{ .Values.allowInsecureWs | quote }}}
        - {name: HOME, value: /tmp/home}
        {{- if or $worker.mediaCa.configMap $worker.mediaCa.secret }}
        - {name: MEDIA_CA, value: /etc/tabreel/media-ca/{{ $worker.mediaCa.key }}}
        {{- end }}
        {{- with $worker.antMediaUrl }}
        - {name: ANTMEDIA_URL, value: {{ . | quote }}}
        {{- end }}
        {{- with $worker.maxSize }}
        - {name: MAX_SIZE, value: {{ . | quote }}}
        {{- end }}
        {{- if eq $worker.autoscaling.mode "job" }}
        - {name: LEAVE_AFTER, value: "1"}
        {{- end }}
        {{- with $worker.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- include "tabreel.probes" . | nindent 6 }}
      # requests are limits, in whole CPUs: Guaranteed, so that nobody else's load is a recording's lost frames
      resources:
        requests: {cpu: {{ include "tabreel.worker.cpu" . | quote }}, memory: {{ include "tabreel.worker.memory" . }}}
        limits: {cpu: {{ include "tabreel.worker.cpu" . | quote }}, memory: {{ include "tabreel.worker.memory" . }}}
      volumeMounts:
        {{- if eq $worker.shm "require" }}
        - {name: shm, mountPath: /dev/shm}
        {{- end }}
        - {name: tmp, mountPath: /tmp}
        - {name: spool, mountPath: /spool}
        {{- if or $worker.mediaCa.configMap $worker.mediaCa.secret }}
        - {name: media-ca, mountPath: /etc/tabreel/media-ca, readOnly: true}
        {{- end }}
        {{- include "tabreel.redisMounts" . | nindent 8 }}
  volumes:
    {{- if eq $worker.shm "require" }}
    # counts against the memory limit
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ include "tabreel.worker.shm" . }}Mi}
    {{- end }}
    - name: tmp
      emptyDir: {sizeLimit: {{ $worker.tmpSize }}}
    - name: spool
      emptyDir: {sizeLimit: {{ add (mul $slots (int $worker.spoolLimit)) 512 }}Mi}
    {{- include "tabreel.fileVolume" (dict "name" "media-ca" "from" $worker.mediaCa) | nindent 4 }}
    {{- include "tabreel.redisVolumes" . | nindent 4 }}
  {{- $selector := $worker.nodeSelector }}
  {{- $tolerations := $worker.tolerations }}
  {{- with $worker.dedicatedNodes }}
  {{- if .enabled }}
  {{- $selector = merge (dict .key .value) $selector }}
  {{- $tolerations = append $tolerations (dict "key" .key "operator" "Equal" "value" .value "effect" "NoSchedule") }}
  {{- end }}
  {{- end }}
  {{- with $selector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $worker.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $worker.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Where the autoscalers read demand. */}}
{{- define "tabreel.demandTrigger" -}}
- type: metrics-api
  name: demand
  metricType: AverageValue
  metadata:
    url: http://{{ include "tabreel.fullname" . }}-metrics.{{ .Release.Namespace }}.svc:9090/metrics
    format: prometheus
    valueLocation: tabreel_demand
    targetValue: {{ .Values.worker.slots | quote }}
{{- end -}}

{{- define "tabreel.scaleBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: {{ .scaleUp.stabilizationSeconds }}
  selectPolicy: Max
  policies:
    - {type: Percent, value: {{ .scaleUp.percent }}, periodSeconds: {{ .scaleUp.periodSeconds }}}
    - {type: Pods, value: {{ .scaleUp.pods }}, periodSeconds: {{ .scaleUp.periodSeconds }}}
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDown.stabilizationSeconds }}
  selectPolicy: Max
  policies:
    - {type: Percent, value: {{ .scaleDown.percent }}, periodSeconds: {{ .scaleDown.periodSeconds }}}
    - {type: Pods, value: {{ .scaleDown.pods }}, periodSeconds: {{ .scaleDown.periodSeconds }}}
{{- end -}}
