/** `docker compose config`: docker-compose.yml as Compose itself reads it. `.ci/run` installs the standalone command. */
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { z } from 'zod';

/** As `.ci/run` has it. */
const VERSION = '5.0.2';
const cached = join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'tabreel', `compose-${VERSION}`, 'docker-compose');
const command: readonly [string, ...string[]] = existsSync(cached) ? [cached] : ['docker', 'compose'];

export const hasCompose = spawnSync(command[0], [...command.slice(1), 'version']).status === 0;

const service = z.object({
  image: z.string(),
  user: z.string().optional(),
  read_only: z.boolean().optional(),
  cap_drop: z.array(z.string()).optional(),
  cap_add: z.array(z.string()).optional(),
  security_opt: z.array(z.string()).optional(),
  privileged: z.boolean().optional(),
  entrypoint: z.array(z.string()).nullish(),
  command: z.array(z.string()).nullish(),
  environment: z.record(z.string(), z.string().nullable()).default({}),
  networks: z.record(z.string(), z.object({ aliases: z.array(z.string()).optional() }).nullable()).default({}),
  network_mode: z.string().optional(),
  ports: z.array(z.object({ host_ip: z.string().optional(), target: z.number(), published: z.string() })).default([]),
  volumes: z.array(z.object({ type: z.string(), source: z.string(), target: z.string(), read_only: z.boolean().optional() })).default([]),
  tmpfs: z.array(z.string()).default([]),
  shm_size: z.string().optional(),
  stop_grace_period: z.string().optional(),
  depends_on: z.record(z.string(), z.object({ condition: z.string() })).default({}),
  build: z.object({ context: z.string(), dockerfile: z.string() }).optional(),
  profiles: z.array(z.string()).default([]),
});
const project = z.object({ services: z.record(z.string(), service), networks: z.record(z.string(), z.object({ internal: z.boolean().optional() }).nullable()) });

export type ComposeService = z.infer<typeof service>;
export type ComposeProject = z.infer<typeof project>;

/** @throws with what Compose says is wrong */
export function composeConfig(directory: string, environment: Readonly<Record<string, string>> = {}): ComposeProject {
  const { status, stdout, stderr } = spawnSync(command[0], [...command.slice(1), '--profile', '*', '--project-directory', directory, '-f', join(directory, 'docker-compose.yml'), 'config', '--format', 'json'], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...environment },
  });
  if (status !== 0 || stderr !== '') throw new Error(stderr);
  return project.parse(JSON.parse(stdout));
}
