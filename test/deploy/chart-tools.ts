/** helm and kubeconform, as .ci/run builds them, and the schemas of what charts are made of. */
import { execFile } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { promisify } from 'node:util';
import { parse, parseAllDocuments } from 'yaml';

const cache = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'tabreel');
/** The version of Kubernetes whose schemas are looked at, and that helm is told of. */
export const KUBERNETES = '1.37.2';
const schemaSource = join(cache, `kubernetes-schemas-${KUBERNETES}`);

const find = (name: string, version: string): string | null =>
  [join(cache, `${name}-${version}`), ...(process.env['PATH'] ?? '').split(delimiter)].map((directory) => join(directory, name)).find((path) => existsSync(path)) ?? null;
const tools = { helm: find('helm', '3.22.0'), kubeconform: find('kubeconform', '0.8.0') };

export const hasHelm = tools.helm !== null;
export const canValidate = tools.kubeconform !== null && existsSync(join(schemaSource, 'complete'));
if (!hasHelm || !canValidate) console.warn('Tests of the chart are skipped, or made without schemas, for want of helm, kubeconform or their schemas: .ci/run builds them');

const run = async (tool: keyof typeof tools, args: readonly string[], input?: string) => {
  const child = promisify(execFile)(tools[tool] as string, args, { maxBuffer: 2 ** 26 });
  if (input !== undefined) child.child.stdin?.end(input);
  return child;
};

export const chart = new URL('../../deploy/chart/', import.meta.url).pathname;

/** Of a chart: preset names, value files' paths from the chart's own folder, and `--set` values. */
export type Values = { files?: readonly string[]; set?: Readonly<Record<string, string | number | boolean>> };

const argsOf = ({ files = [], set = {} }: Values): string[] => [
  '--kube-version', KUBERNETES,
  ...files.flatMap((file) => ['-f', join(chart, file)]),
  ...Object.entries(set).flatMap(([name, value]) => [typeof value === 'string' ? '--set-string' : '--set', `${name}=${value}`]),
];

export type KubeObject = {
  apiVersion: string;
  kind: string;
  metadata: { name: string; labels?: Record<string, string>; annotations?: Record<string, string> };
  // oxlint-disable-next-line typescript/no-explicit-any -- objects of all kinds, looked into by tests
  spec: any;
  // oxlint-disable-next-line typescript/no-explicit-any
  data?: any;
};

/** @throws with what helm says */
export async function lint(values: Values): Promise<string> {
  return (await run('helm', ['lint', '--strict', chart, ...argsOf(values)])).stdout;
}

type Rendered = { text: string; objects: KubeObject[] };
const rendered = new Map<string, Promise<Rendered>>();
/** @returns the manifest as text, and its objects. @throws with what helm says */
export function render(values: Values): Promise<Rendered> {
  const key = JSON.stringify(values);
  const known = rendered.get(key) ?? renderAnew(values);
  rendered.set(key, known);
  return known;
}

async function renderAnew(values: Values): Promise<Rendered> {
  const { stdout: text } = await run('helm', ['template', 'rec', chart, '--namespace', 'media', ...argsOf(values)]);
  const objects = parseAllDocuments(text).map((document) => {
    if (document.errors.length > 0) throw document.errors[0];
    return document.toJS() as KubeObject | null;
  });
  return { text, objects: objects.filter((object) => object !== null) };
}

/** Kinds without a schema here, which are not looked at: of clouds. */
export const UNCHECKED = ['BackendConfig', 'ManagedCertificate'];

type Validity = { valid: number; skipped: number; problems: string[] };

/** Whether the objects are what Kubernetes and the operators take; a field that they don't know is a problem. */
export async function validate(text: string): Promise<Validity> {
  const schemas = await (made ??= makeSchemas());
  const args = ['-strict', '-output', 'json', '-verbose', '-summary', '-skip', UNCHECKED.join(','), '-schema-location', `${schemas}/{{.ResourceKind}}.json`, '-'];
  const { stdout } = await run('kubeconform', args, text).catch((error: unknown) => error as { stdout: string });
  const { resources, summary } = JSON.parse(stdout) as { resources: { kind: string; name: string; status: string; msg: string }[]; summary: { valid: number; skipped: number } };
  const problems = resources.filter(({ status }) => status === 'statusInvalid' || status === 'statusError').map(({ kind, name, msg }) => `${kind} ${name}: ${msg}`);
  return { ...summary, problems };
}

type Schema = { [key: string]: unknown; properties?: Record<string, Schema> };

let made: Promise<string> | undefined;
/** A file for each kind, made of Kubernetes' OpenAPI and of the operators' CRDs. */
async function makeSchemas(): Promise<string> {
  const into = mkdtempSync(join(tmpdir(), 'tabreel-schemas-'));
  process.once('exit', () => rmSync(into, { recursive: true, force: true }));
  const { definitions } = JSON.parse(readFileSync(join(schemaSource, 'swagger.json'), 'utf8')) as { definitions: Record<string, Schema> };
  const native: Record<string, string> = {
    Deployment: 'io.k8s.api.apps.v1.Deployment', Service: 'io.k8s.api.core.v1.Service', ServiceAccount: 'io.k8s.api.core.v1.ServiceAccount', Pod: 'io.k8s.api.core.v1.Pod',
    ConfigMap: 'io.k8s.api.core.v1.ConfigMap', PersistentVolumeClaim: 'io.k8s.api.core.v1.PersistentVolumeClaim', Ingress: 'io.k8s.api.networking.v1.Ingress',
    NetworkPolicy: 'io.k8s.api.networking.v1.NetworkPolicy', PodDisruptionBudget: 'io.k8s.api.policy.v1.PodDisruptionBudget', HorizontalPodAutoscaler: 'io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler',
  };
  for (const [kind, name] of Object.entries(native)) {
    const needed = new Map<string, Schema>();
    const collect = (schema: unknown): void => {
      if (Array.isArray(schema)) return schema.forEach(collect);
      if (typeof schema !== 'object' || schema === null) return;
      for (const [key, value] of Object.entries(schema)) {
        if (key !== '$ref' || typeof value !== 'string') collect(value);
        else {
          const target = value.replace('#/definitions/', '');
          if (needed.has(target)) continue;
          needed.set(target, definitions[target] as Schema);
          collect(definitions[target]);
        }
      }
    };
    collect(definitions[name]);
    const all = Object.fromEntries([...needed].map(([key, schema]) => [key, strict(schema)]));
    writeFileSync(join(into, `${kind.toLowerCase()}.json`), JSON.stringify({ ...strict(definitions[name] as Schema), definitions: all }));
  }
  const crds = [
    ...['scaledobjects', 'scaledjobs'].map((name) => `keda.sh_${name}`),
    ...['servicemonitors', 'podmonitors', 'prometheusrules'].map((name) => `monitoring.coreos.com_${name}`),
    'gateway.networking.k8s.io_httproutes',
  ];
  for (const file of crds) {
    const { spec } = parse(readFileSync(join(schemaSource, `${file}.yaml`), 'utf8')) as { spec: { names: { kind: string }; versions: { storage: boolean; schema: { openAPIV3Schema: Schema } }[] } };
    const version = spec.versions.find(({ storage }) => storage);
    writeFileSync(join(into, `${spec.names.kind.toLowerCase()}.json`), JSON.stringify(strict(version?.schema.openAPIV3Schema ?? {})));
  }
  return into;
}

/** Fields that are not named are refused; amounts may be text or numbers. */
function strict(schema: Schema, isTop = true): Schema {
  if (schema['format'] === 'int-or-string' || schema['x-kubernetes-int-or-string'] === true) return { type: ['string', 'integer'] };
  if (typeof schema['description'] === 'string' && schema['description'].startsWith('Quantity is a fixed-point')) return { type: ['string', 'number'] };
  const copy: Schema = {};
  for (const [key, value] of Object.entries(schema)) {
    if (key === 'description' || key.startsWith('x-')) continue;
    if (key === 'properties') copy.properties = Object.fromEntries(Object.entries(value as Record<string, Schema>).map(([name, each]) => [name, strict(each, false)]));
    else if ((key === 'items' || key === 'additionalProperties') && typeof value === 'object' && value !== null) copy[key] = strict(value as Schema, false);
    else if (key === 'allOf' || key === 'anyOf' || key === 'oneOf') continue;
    else copy[key] = value;
  }
  const metadata = isTop && copy.properties?.['metadata']?.['type'] === 'object';
  if (metadata && copy.properties !== undefined) copy.properties['metadata'] = { type: 'object' };
  if (copy.properties !== undefined && schema['x-kubernetes-preserve-unknown-fields'] !== true) copy['additionalProperties'] = false;
  return copy;
}
