/**
 * The page that `tabreel doctor --record` has recorded: a moving picture and a beep each second. The edge serves it itself,
 * so that a worker's way out to the external origin is tried with it. The same for everybody: nothing of the request is in it.
 */
import { Hono, type Env } from 'hono';

/** Below the external origin. */
export const DOCTOR_PAGE_PATH = '/doctor/page';
/** All that it is made of. */
export const doctorPaths: readonly string[] = [DOCTOR_PAGE_PATH, '/doctor/page.css', '/doctor/page.js'];

/** An element of the page, by which it is told from whatever else answers there, a login page say. */
export const DOCTOR_PAGE_ELEMENT = 'canvas#tabreel-doctor';

const csp = "default-src 'none'; script-src 'self'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="robots" content="noindex">
<title>Tabreel doctor</title>
<link rel="stylesheet" href="page.css">
<canvas id="tabreel-doctor" width="640" height="360"></canvas>
<script src="page.js"></script>
</html>
`;

const style = `
html, body { margin: 0; height: 100%; background: #123; }
canvas { display: block; width: 100vw; height: 100vh; object-fit: contain; }
`;

const script = `
const canvas = document.getElementById('tabreel-doctor');
const context = canvas.getContext('2d');
const draw = (now) => {
  context.fillStyle = '#123';
  context.fillRect(0, 0, 640, 360);
  context.fillStyle = '#fc6';
  context.beginPath();
  context.arc(320 + 240 * Math.sin(now / 700), 250, 40, 0, 2 * Math.PI);
  context.fill();
  context.fillStyle = '#fff';
  context.font = '48px sans-serif';
  context.textAlign = 'center';
  context.fillText('Tabreel doctor  ' + (now / 1000).toFixed(2) + ' s', 320, 120);
  requestAnimationFrame(draw);
};
requestAnimationFrame(draw);

const audio = new AudioContext();
const beep = () => {
  const tone = new OscillatorNode(audio, { frequency: 880 });
  tone.connect(new GainNode(audio, { gain: 0.3 })).connect(audio.destination);
  tone.start();
  tone.stop(audio.currentTime + 0.1);
};
setInterval(beep, 1000);
`;

export function doctorPageRoutes<E extends Env>(): Hono<E> {
  const routes = new Hono<E>();
  const answer = (body: string, type: string) => () =>
    new Response(body, { headers: { 'Content-Type': `${type}; charset=utf-8`, 'Content-Security-Policy': csp, 'Cache-Control': 'no-store' } });
  routes.get(DOCTOR_PAGE_PATH, answer(page, 'text/html'));
  routes.get(`${DOCTOR_PAGE_PATH}.css`, answer(style, 'text/css'));
  routes.get(`${DOCTOR_PAGE_PATH}.js`, answer(script, 'text/javascript'));
  return routes;
}
