/** The page at /docs: openapi.json, readable. Small, so that nothing has to be loaded from a CDN or bundled. */

export const page = `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Tabreel API</title>
<link rel="stylesheet" href="docs/page.css">
<main><h1>Tabreel API</h1><p id="intro">Loading <a href="openapi.json">openapi.json</a></p><div id="routes"></div></main>
<script src="docs/page.js" defer></script>
</html>
`;

export const pageStyle = `
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
code, pre, summary b { font-family: ui-monospace, monospace; font-size: .9rem; }
details { border: 1px solid #8885; border-radius: .4rem; margin: .5rem 0; padding: .4rem .8rem; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary b { display: inline-block; min-width: 4.5rem; }
summary span { opacity: .75; margin-left: .5rem; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; vertical-align: top; padding: .2rem .6rem .2rem 0; border-bottom: 1px solid #8883; }
pre { overflow: auto; max-height: 24rem; background: #8882; padding: .6rem; border-radius: .4rem; }
`;

// textContent throughout: what the document says is text, never markup
export const pageScript = `
const element = (name, text, ...children) => {
  const node = document.createElement(name);
  if (text) node.textContent = text;
  node.append(...children);
  return node;
};
const table = (heads, rows) => {
  const head = element('tr', '', ...heads.map((text) => element('th', text)));
  return element('table', '', head, ...rows.map((cells) => element('tr', '', ...cells.map((text) => element('td', text ?? '')))));
};
const typeOf = (schema = {}) =>
  schema.const !== undefined ? JSON.stringify(schema.const)
  : schema.enum ? schema.enum.join(' | ')
  : (schema.anyOf ?? schema.oneOf)?.map(typeOf).join(' | ') ?? (schema.type === 'array' ? typeOf(schema.items) + '[]' : String(schema.type ?? 'any'));
const bounds = (schema) => ['minimum', 'maximum', 'minLength', 'maxLength', 'maxItems', 'multipleOf', 'format']
  .filter((key) => schema[key] !== undefined).map((key) => key + ' ' + schema[key]).join(', ');
const schemaOf = (content) => Object.values(content ?? {})[0]?.schema;

const show = (document_) => {
  document.getElementById('intro').replaceChildren(document_.info.description + ' ', Object.assign(element('a', 'openapi.json'), { href: 'openapi.json' }));
  for (const [path, methods] of Object.entries(document_.paths)) {
    for (const [method, route] of Object.entries(methods)) {
      const details = element('details', '', element('summary', '', element('b', method.toUpperCase()), element('code', path), element('span', route.summary)));
      if (route.description) details.append(element('p', route.description));
      const ways = (route.security ?? []).map((way) => Object.entries(way).map(([name, scopes]) => [name, ...scopes].join(' ')).join(' and '));
      if (ways.length > 0) details.append(element('p', 'Needs: ' + ways.join(', or ')));
      if (route.parameters?.length) {
        details.append(element('h4', 'Parameters'), table(['name', 'in', 'type', ''], route.parameters.map((one) => [one.name, one.in, typeOf(one.schema), one.description])));
      }
      const body = schemaOf(route.requestBody?.content);
      if (body?.properties) {
        const rows = Object.entries(body.properties).map(([name, schema]) => [
          name + (body.required?.includes(name) ? ' *' : ''), typeOf(schema), [schema.description, bounds(schema)].filter(Boolean).join('; '),
          schema.default === undefined ? '' : JSON.stringify(schema.default)]);
        details.append(element('h4', 'Body'), table(['field', 'type', '', 'default'], rows));
      }
      details.append(element('h4', 'Answers'), table(['status', '', 'type'], Object.entries(route.responses ?? {}).map(([status, one]) => [status, one.description, Object.keys(one.content ?? {}).join(', ')])));
      const answer = schemaOf(Object.entries(route.responses ?? {}).find(([status]) => status.startsWith('2'))?.[1].content);
      if (answer?.properties) details.append(element('details', '', element('summary', 'Schema of the answer'), element('pre', JSON.stringify(answer, null, 2))));
      document.getElementById('routes').append(details);
    }
  }
};
fetch('openapi.json').then((answer) => answer.json()).then(show, (error) => { document.getElementById('intro').textContent = String(error); });
`;
