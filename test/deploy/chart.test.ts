/** The Helm chart: what it renders is what Kubernetes takes, and what recordings need of it. */
import { readFileSync } from 'node:fs';
import ipaddr from 'ipaddr.js';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { readEdgeConfig, readFinaliserConfig } from '../../edge/config.ts';
import { readWorkerConfig } from '../../worker/config.ts';
import { SHM_PER_SLOT } from '../../worker/capacity.ts';
import { canValidate, chart, hasHelm, lint, render, UNCHECKED, validate, type KubeObject, type Values } from './chart-tools.ts';

const presets = ['nginx', 'traefik', 'istio', 'alb', 'gke', 'gateway-api'];
const preset = (name: string) => `presets/${name}.yaml`;
const variants: Record<string, Values> = {
  'as it is': {},
  ...Object.fromEntries(presets.map((name) => [name, { files: [preset(name)] }])),
  'nginx with cert-manager': { files: [preset('nginx'), preset('cert-manager')] },
  production: { files: [preset('gateway-api'), 'production.yaml'] },
  'production behind nginx': { files: [preset('nginx'), 'production.yaml'] },
  'a job a recording': { set: { 'worker.autoscaling.mode': 'job', 'worker.slots': 1 } },
  'an HPA': { set: { 'worker.autoscaling.mode': 'hpa', 'worker.autoscaling.metricSelector.prefix': 'tabreel' } },
  'nothing scales': { set: { 'worker.autoscaling.mode': 'none' } },
  'no sandbox, no shared memory, authorities': {
    set: {
      'worker.sandbox': 'off', 'worker.shm': 'disk', 'worker.mediaCa.configMap': 'ca', 'redis.clientCertificateSecret': 'client', 'redis.ca.configMap': 'redis-ca',
      'networkPolicy.enabled': false, 'storage.volume.accessMode': 'ReadWriteMany', 'edge.replicas': 3,
    },
  },
};

type PodSpec = KubeObject['spec'];
/** Every pod that an object makes. */
function podsOf(objects: readonly KubeObject[]): { name: string; component: string; spec: PodSpec; labels: Record<string, string> }[] {
  return objects.flatMap((object) => {
    const template = object.kind === 'Pod' ? object : object.kind === 'Deployment' ? object.spec.template : object.kind === 'ScaledJob' ? object.spec.jobTargetRef.template : null;
    if (template === null) return [];
    const labels = template.metadata.labels as Record<string, string>;
    return [{ name: object.metadata.name, component: labels['app.kubernetes.io/component'] ?? '', spec: template.spec, labels }];
  });
}
const only = (objects: readonly KubeObject[], kind: string, name = ''): KubeObject => {
  const found = objects.filter((object) => object.kind === kind && object.metadata.name.endsWith(name));
  expect(found.map(({ metadata }) => metadata.name)).toHaveLength(1);
  return found[0] as KubeObject;
};
const pod = (objects: readonly KubeObject[], component: string): PodSpec => podsOf(objects).find((each) => each.component === component)?.spec;
const environmentOf = (spec: PodSpec): Record<string, string> =>
  Object.fromEntries((spec.containers[0].env as { name: string; value?: string }[]).map(({ name, value }) => [name, value ?? `<${name}>`]));

const units: Record<string, number> = { '': 1, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, k: 1e3, M: 1e6, G: 1e9, m: 1e-3 };
const amount = (quantity: string | number): number => {
  const [, number = '', unit = ''] = /^([\d.]+)([A-Za-z]*)$/.exec(String(quantity)) ?? [];
  return Number(number) * (units[unit] ?? NaN);
};

/** As the kubelet reckons it: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/ */
function qosClass(spec: PodSpec): 'Guaranteed' | 'Burstable' | 'BestEffort' {
  const containers = [...spec.containers, ...(spec.initContainers ?? [])] as { resources?: { requests?: Record<string, string>; limits?: Record<string, string> } }[];
  const all = containers.map(({ resources = {} }) => ({ requests: resources.requests ?? {}, limits: resources.limits ?? {} }));
  if (all.every(({ requests, limits }) => Object.keys({ ...requests, ...limits }).length === 0)) return 'BestEffort';
  const same = all.every(({ requests, limits }) => ['cpu', 'memory'].every((name) => limits[name] !== undefined && amount(requests[name] ?? limits[name] ?? '') === amount(limits[name])));
  return same ? 'Guaranteed' : 'Burstable';
}

describe.skipIf(!hasHelm)('the chart', () => {
  it.each(Object.entries(variants))('%s: passes lint, and is what Kubernetes and the operators take', async (_name, values) => {
    expect(await lint(values)).toContain('0 chart(s) failed');
    const { text, objects } = await render(values);
    if (!canValidate) return;
    const { valid, skipped, problems } = await validate(text);
    expect(problems).toEqual([]);
    const unchecked = objects.filter(({ kind }) => UNCHECKED.includes(kind)).length;
    expect({ valid, skipped }).toEqual({ valid: objects.length - unchecked, skipped: unchecked });
  });

  it.skipIf(!canValidate)('a field that there is not, or a wrong one, is noticed', async () => {
    const { text } = await render({});
    expect((await validate(text.replaceAll('enableServiceLinks', 'enableServiceLink'))).problems.length).toBeGreaterThan(0);
    expect((await validate(text.replace('pollingInterval: 15', 'pollingInterval: often'))).problems).toHaveLength(1);
  });

  it.each(Object.entries(variants))('%s: no pod has a token, root, a writable root, capabilities or a secret in clear; selectors find what they are for', async (_name, values) => {
    const { text, objects } = await render(values);
    const pods = podsOf(objects);
    expect(pods.map(({ component }) => component)).toEqual(expect.arrayContaining(['edge', 'finaliser', 'worker']));
    for (const { spec, component, labels } of pods) {
      expect(spec).toMatchObject({ automountServiceAccountToken: false, enableServiceLinks: false });
      expect(spec.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 10001 });
      expect(['RuntimeDefault', 'Localhost']).toContain(spec.securityContext.seccompProfile.type);
      expect(spec).not.toHaveProperty('hostNetwork');
      for (const container of spec.containers) {
        expect(container.securityContext).toMatchObject({ allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, privileged: false, capabilities: { drop: ['ALL'] } });
        expect(container.resources.limits.memory).toBeDefined();
        for (const { name } of container.volumeMounts) expect(spec.volumes.map((volume: { name: string }) => volume.name)).toContain(name);
        for (const { name, value, valueFrom } of container.env) {
          if (/SECRET|_KEY$|PASSWORD|REDIS_URL/.test(name) && name !== 'REDIS_KEY') expect([name, value, valueFrom?.secretKeyRef?.key]).toEqual([name, undefined, expect.any(String)]);
        }
      }
      for (const { emptyDir } of spec.volumes) if (emptyDir !== undefined) expect(emptyDir.sizeLimit).toMatch(/^\d+[MG]i$/);
      if (component === 'test') continue;
      const policies = objects.filter(({ kind, spec }) => kind === 'NetworkPolicy' && Object.entries((spec.podSelector.matchLabels ?? {}) as Record<string, string>).every(([name, value]) => labels[name] === value));
      if (values.set?.['networkPolicy.enabled'] !== false) expect(policies.length).toBeGreaterThanOrEqual(2);
    }
    for (const { kind, spec, metadata } of objects.filter((object) => ['Deployment', 'PodDisruptionBudget', 'Service'].includes(object.kind))) {
      const selector = (kind === 'Service' ? spec.selector : spec.selector.matchLabels) as Record<string, string>;
      const found = pods.filter(({ labels }) => Object.entries(selector).every(([name, value]) => labels[name] === value));
      expect([metadata.name, found.length]).toEqual([metadata.name, 1]);
    }
    expect(text).not.toMatch(/rediss?:\/\/[^U]/);
  });

  it.each(Object.entries(variants))('%s: edge, finaliser and worker take the settings that they get', async (_name, values) => {
    const { objects } = await render(values);
    const given = { API_KEYS: '/no/keys.json', REDIS_URL: 'rediss://u:p@h', TOKEN_SECRET: 'a-token-secret-of-tests', SECRETS_KEY: 'a-secrets-key-of-tests', REDIS_CA: '', REDIS_CERT: '', REDIS_KEY: '', MEDIA_CA: '' };
    const edge = readEdgeConfig({ ...environmentOf(pod(objects, 'edge')), ...given }, '');
    expect(edge).toMatchObject({ host: '0.0.0.0', port: 8080, healthPort: 9090 });
    expect(readFinaliserConfig({ ...environmentOf(pod(objects, 'finaliser')), ...given }, '')).toMatchObject({ healthPort: 9090, queuePrefix: edge.queuePrefix });
    const worker = pod(objects, 'worker');
    const { cpu, memory } = worker.containers[0].resources.limits;
    const shm = worker.volumes.find(({ name }: { name: string }) => name === 'shm')?.emptyDir.sizeLimit;
    // a pod without a volume there has 64 MiB
    const config = await readWorkerConfig({ ...environmentOf(worker), ...given }, { cores: Number(cpu), memory: amount(memory), shm: shm === undefined ? 2 ** 26 : amount(shm) });
    expect(config.slots).toBeLessThanOrEqual(Number(cpu));
  });

  it.each(Object.entries(variants))('%s: a worker is Guaranteed, has whole CPUs, and room for /dev/shm beside its browsers', async (_name, values) => {
    const { objects } = await render(values);
    const spec = pod(objects, 'worker');
    const [worker] = spec.containers;
    expect(qosClass(spec)).toBe('Guaranteed');
    expect(worker.resources.limits.cpu).toMatch(/^[1-9]\d*$/);
    const environment = environmentOf(spec);
    const slots = Number(environment['SLOTS']);
    const browsers = slots * (amount(environment['BROWSER_MEMORY_LIMIT'] ?? '') * (2 ** 20 / 1e6));
    if (environment['SHM'] === 'disk') return expect(spec.volumes.map(({ name }: { name: string }) => name)).not.toContain('shm');
    expect(worker.volumeMounts).toContainEqual({ name: 'shm', mountPath: '/dev/shm' });
    const { emptyDir } = spec.volumes.find(({ name }: { name: string }) => name === 'shm');
    expect(emptyDir.medium).toBe('Memory');
    expect(amount(emptyDir.sizeLimit)).toBeGreaterThanOrEqual(slots * SHM_PER_SLOT);
    expect(amount(worker.resources.limits.memory)).toBeGreaterThanOrEqual(browsers + amount(emptyDir.sizeLimit) + 256 * 2 ** 20);
    // what waits on disk fits into its volume
    const spool = spec.volumes.find(({ name }: { name: string }) => name === 'spool').emptyDir.sizeLimit;
    expect(amount(spool)).toBeGreaterThanOrEqual(slots * Number(environment['SPOOL_LIMIT']) * 2 ** 20);
  });

  it('a worker has time to end what it records, and nothing takes its node away', async () => {
    const { objects } = await render(variants['production'] as Values);
    const spec = pod(objects, 'worker');
    const [worker, edge] = [environmentOf(spec), environmentOf(pod(objects, 'edge'))];
    expect(spec.terminationGracePeriodSeconds).toBe(Number(worker['DRAIN_TIMEOUT']) + 300);
    expect(Number(worker['DRAIN_TIMEOUT'])).toBeGreaterThanOrEqual(Number(edge['MAX_DURATION']));
    const deployment = only(objects, 'Deployment', '-worker');
    expect(deployment.spec).not.toHaveProperty('replicas');
    expect(deployment.spec.strategy.rollingUpdate).toEqual({ maxSurge: '100%', maxUnavailable: 0 });
    expect(deployment.spec.template.metadata.annotations).toMatchObject({ 'cluster-autoscaler.kubernetes.io/safe-to-evict': 'false', 'karpenter.sh/do-not-disrupt': 'true' });
    expect(only(objects, 'PodDisruptionBudget', '-worker').spec.maxUnavailable).toBe(0);
    expect(spec.containers[0].readinessProbe.httpGet).toEqual({ path: '/readyz', port: 'health' });
    expect(spec.containers[0].livenessProbe.httpGet).toEqual({ path: '/healthz', port: 'health' });
    expect(pod(objects, 'edge').containers[0].lifecycle.preStop.sleep.seconds).toBeGreaterThan(0);
    expect(spec.tolerations).toEqual([{ key: 'tabreel.dev/workers', operator: 'Equal', value: 'true', effect: 'NoSchedule' }]);
    expect(spec.nodeSelector).toEqual({ 'tabreel.dev/workers': 'true' });
  });

  it('workers follow demand with a headroom above the autoscaler\'s tolerance, and leave slowly', async () => {
    const { objects } = await render({});
    const { spec } = only(objects, 'ScaledObject');
    expect(spec.advanced.scalingModifiers).toEqual({ formula: 'demand * 1.15 + 1', target: '2', metricType: 'AverageValue' });
    expect(spec.triggers).toMatchObject([{ type: 'metrics-api', name: 'demand', metadata: { url: 'http://rec-tabreel-metrics.media.svc:9090/metrics', format: 'prometheus', valueLocation: 'tabreel_demand' } }]);
    const metrics = only(objects, 'Service', '-metrics');
    expect(metrics.spec.ports).toMatchObject([{ port: 9090, targetPort: 'health' }]);
    expect(spec.advanced.horizontalPodAutoscalerConfig.behavior.scaleDown).toEqual({
      stabilizationWindowSeconds: 600, selectPolicy: 'Max', policies: [{ type: 'Percent', value: 5, periodSeconds: 60 }, { type: 'Pods', value: 1, periodSeconds: 60 }],
    });
    expect(spec.fallback).toEqual({ failureThreshold: 3, replicas: 1, behavior: 'currentReplicasIfHigher' });
    const hpa = only((await render(variants['an HPA'] as Values)).objects, 'HorizontalPodAutoscaler');
    expect(hpa.spec.metrics[0].external).toMatchObject({ metric: { name: 'tabreel_demand' }, target: { type: 'AverageValue', averageValue: '1739m' } });
    const jobs = only((await render(variants['a job a recording'] as Values)).objects, 'ScaledJob');
    expect(jobs.spec).toMatchObject({ rollout: { strategy: 'gradual' }, jobTargetRef: { backoffLimit: 0, template: { spec: { restartPolicy: 'Never' } } } });
    expect(environmentOf(jobs.spec.jobTargetRef.template.spec)).toMatchObject({ LEAVE_AFTER: '1', SLOTS: '1' });
  });

  it('callers may use the hosts of the ingress and no others', async () => {
    for (const name of presets) {
      const { objects } = await render({ files: [preset(name)] });
      expect([name, environmentOf(pod(objects, 'edge'))['ALLOWED_HOSTS']]).toEqual([name, 'rec.example.com']);
      const route = objects.find(({ kind }) => kind === 'Ingress' || kind === 'HTTPRoute')?.spec;
      expect(route.hostnames ?? route.rules.map(({ host }: { host: string }) => host)).toEqual(['rec.example.com']);
    }
    const { objects } = await render({ files: [preset('nginx')], set: { 'allowedHosts[0]': '*.example.org' } });
    expect(environmentOf(pod(objects, 'edge'))['ALLOWED_HOSTS']).toBe('rec.example.com,*.example.org');
  });

  it('media sockets may last: every preset says so where its ingress would end them', async () => {
    const annotations = async (name: string) => (await render({ files: [preset(name)] })).objects.find(({ kind }) => kind === 'Ingress')?.metadata.annotations ?? {};
    expect(await annotations('nginx')).toMatchObject({ 'nginx.ingress.kubernetes.io/proxy-read-timeout': '3600', 'nginx.ingress.kubernetes.io/proxy-send-timeout': '3600' });
    expect((await annotations('alb'))['alb.ingress.kubernetes.io/load-balancer-attributes']).toContain('idle_timeout.timeout_seconds=3600');
    expect(await annotations('traefik')).not.toHaveProperty('insecure');
    const gke = (await render({ files: [preset('gke')] })).objects;
    expect(only(gke, 'BackendConfig').spec.timeoutSec).toBeGreaterThanOrEqual(14_400);
    expect(only(gke, 'ManagedCertificate').spec.domains).toEqual(['rec.example.com']);
    for (const name of ['gateway-api', 'istio']) expect(only((await render({ files: [preset(name)] })).objects, 'HTTPRoute').spec.rules[0].timeouts).toEqual({ request: '0s' });
  });

  it('pages reach the internet and nothing private; the edge hears its ingress controller alone', async () => {
    const { objects } = await render({ files: [preset('nginx'), 'production.yaml'], set: { 'networkPolicy.clusterCidrs[1]': '2a00:1:2::/48', 'networkPolicy.workerExtraCidrs[0]': '10.50.1.7/32' } });
    const policy = (name: string) => only(objects, 'NetworkPolicy', `-${name}`).spec;
    expect(policy('deny')).toMatchObject({ policyTypes: ['Ingress', 'Egress'] });
    expect(policy('deny')).not.toHaveProperty('egress');
    type Peer = { ipBlock?: { cidr: string; except?: string[] }; namespaceSelector?: unknown; podSelector?: unknown };
    type Rule = { to?: Peer[]; ports?: { port?: number; protocol: string }[] };
    const inside = (address: string, cidr: string) => {
      const [ip, range] = [ipaddr.parse(address), ipaddr.parseCIDR(cidr)];
      return ip.kind() === range[0].kind() && ip.match(range);
    };
    const reaches = (rules: Rule[], address: string, port = 443) =>
      rules.some(({ to = [], ports }) =>
        (ports === undefined || ports.some((each) => each.protocol === 'TCP' && (each.port ?? port) === port)) &&
        to.some(({ ipBlock }) => ipBlock !== undefined && inside(address, ipBlock.cidr) && !(ipBlock.except ?? []).some((range) => inside(address, range))),
      );
    const worker = policy('worker').egress as Rule[];
    for (const address of ['93.184.215.14', '1.1.1.1', '2606:2800:21f::1', '172.32.0.1', '100.128.0.1', '10.50.1.7']) expect([address, reaches(worker, address)]).toEqual([address, true]);
    for (const address of [
      '0.1.2.3', '10.0.0.1', '10.96.0.1', '100.64.0.1', '127.0.0.1', '169.254.169.254', '172.16.0.1', '172.31.255.255', '192.0.0.8', '192.168.1.1', '198.18.0.1', '198.19.255.255', '224.0.0.1', '255.255.255.255',
      '168.63.129.16', '::1', 'fe80::1', 'fd00::1', 'fc00:1::1', 'ff02::1', '::ffff:10.0.0.1', '64:ff9b::a00:1', '2002:a00:1::1', '2001:db8::1', '192.0.2.1', '198.51.100.1', '203.0.113.1', '2a00:1:2::5', '10.20.0.9',
    ]) expect([address, reaches(worker, address)]).toEqual([address, false]);
    // of the private network only Redis, on its own port
    expect(reaches(worker, '10.20.0.9', 6379)).toBe(true);
    const edge = policy('edge') as { ingress: { from: Peer[]; ports: { port: number }[] }[]; egress: Rule[] };
    expect(edge.ingress.filter(({ ports }) => ports.some(({ port }) => port === 8080)).flatMap(({ from }) => from)).toEqual([
      { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'ingress-nginx' } }, podSelector: { matchLabels: { 'app.kubernetes.io/component': 'controller' } } },
    ]);
    expect(policy('worker').ingress.flatMap(({ ports }: { ports: { port: number }[] }) => ports.map(({ port }) => port))).toEqual([9090]);
    expect(reaches(edge.egress, '10.0.0.1')).toBe(false);
    // every address that the balancer of a cloud comes from may reach the edge, and workers don't get a way to it
    const alb = (await render({ files: [preset('alb')] })).objects;
    expect(JSON.stringify(only(alb, 'NetworkPolicy', '-edge').spec.ingress)).toContain('10.0.0.0/16');
    expect(reaches(only(alb, 'NetworkPolicy', '-worker').spec.egress as Rule[], '10.0.3.4')).toBe(false);
  });

  const s3 = { 'storage.url': 's3://b' };
  it.each<[string, Values, RegExp]>([
    ['several edges on a volume of one node', { set: { 'edge.replicas': 2 } }, /edge\.replicas is 2 and storage\.url is file:.*ReadWriteOnce.*set storage\.volume\.accessMode to ReadWriteMany/],
    ['a recording that outlasts the drain', { set: { 'recording.maxDuration': 20_000 } }, /maxDuration is 20000 s and worker\.drainTimeout 14400 s.*Raise worker\.drainTimeout to 20000/],
    ['memory that forgets /dev/shm', { set: { 'worker.resources.memory': '4Gi' } }, /worker\.resources\.memory is 4Gi, and 2 slots need 5120 MiB.*512 MiB of \/dev\/shm/],
    ['a /dev/shm that the worker refuses', { set: { 'worker.shmPerSlot': '64Mi' } }, /worker\.shmPerSlot is 64Mi.*below 256Mi/],
    ['jobs with two slots', { set: { 'worker.autoscaling.mode': 'job' } }, /set worker\.slots: 1/],
    ['a sandbox without what lets it', { set: { 'worker.seccompProfile': '' } }, /Put deploy\/seccomp\/chromium\.json on the nodes/],
    ['an ingress without hosts', { set: { 'ingress.enabled': true } }, /hosts is empty/],
    ['an ingress without a certificate', { set: { 'ingress.enabled': true, 'hosts[0]': 'a.example' } }, /ingress\.tlsSecret is empty/],
    ['an ingress that nobody may come by', { set: { 'ingress.enabled': true, 'hosts[0]': 'a.example', 'ingress.tlsSecret': 't' } }, /networkPolicy\.ingressController names neither/],
    ['a route to no gateway', { set: { 'httpRoute.enabled': true, 'hosts[0]': 'a.example' } }, /httpRoute\.parentRefs is empty/],
    ['a canary with nowhere to go', { set: { ...s3, 'canary.enabled': true } }, /set hosts, publicUrl or canary\.url/],
    ['an open door behind believed pods', { set: { 'networkPolicy.enabled': false, 'edge.antmediaOpen': true } }, /any pod could push/],
    ['a headroom within the tolerance', { set: { 'worker.autoscaling.headroom.share': 0.1 } }, /headroom\.share is 0\.1.*more than 0\.1/],
    ['a value that there is not', { set: { 'worker.slotz': 3 } }, /additional properties 'slotz' not allowed/],
    ['a value of a wrong kind', { set: { 'worker.captureEngine': 'camera' } }, /captureEngine/],
  ])('refuses %s, and says what to change', async (_name, values, sentence) => {
    await expect(render(values)).rejects.toThrow(sentence);
  });

  it('such a recording may be handed over, where that is said', async () => {
    expect((await render({ set: { 'recording.maxDuration': 20_000, 'worker.handOver': true } })).objects.length).toBeGreaterThan(10);
    expect((await render({ set: { 'edge.replicas': 2, ...s3 } })).objects.some(({ kind }) => kind === 'PersistentVolumeClaim')).toBe(false);
  });

  it('alerts and dashboard ask for metrics that there are', async () => {
    const documented = new Set([...readFileSync(new URL('../../docs/metrics.md', import.meta.url), 'utf8').matchAll(/tabreel_\w+/g)].map(([name]) => name));
    for (const [, name] of readFileSync(new URL('../../docs/doctor.md', import.meta.url), 'utf8').matchAll(/`(tabreel_\w+)/g)) documented.add(name ?? '');
    const { groups } = parse(readFileSync(`${chart}files/alerts.yaml`, 'utf8')) as { groups: { rules: { alert: string; expr: string }[] }[] };
    const { panels } = JSON.parse(readFileSync(`${chart}files/dashboard.json`, 'utf8')) as { panels: { targets: { expr: string }[] }[] };
    const expressions = [...groups.flatMap(({ rules }) => rules.map(({ expr }) => expr)), ...panels.flatMap(({ targets }) => targets.map(({ expr }) => expr))];
    expect(expressions.length).toBeGreaterThan(30);
    for (const expression of expressions) {
      const names = [...expression.matchAll(/tabreel_\w+/g)].map(([name]) => name.replace(/_bucket$/, ''));
      expect([expression, names.filter((name) => !documented.has(name))]).toEqual([expression, []]);
    }
    const { objects } = await render(variants['production'] as Values);
    expect(only(objects, 'PrometheusRule').spec.groups).toEqual(groups);
    expect(JSON.parse(only(objects, 'ConfigMap', '-dashboard').data['tabreel.json'])).toHaveProperty('panels');
  });
});
