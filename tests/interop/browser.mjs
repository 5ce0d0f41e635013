// A user in front of the provider's own pages: browser.mjs URL consent|deny. Logs in, says yes or no,
// and prints status and address of the page at which it ends, and the page.
import assert from 'node:assert/strict';

const [start, answer] = process.argv.slice(2);
const cookies = new Map();
const form = (members) => ({ method: 'POST', body: new URLSearchParams(members) });

// The provider's cookies go back to the provider alone, whichever of its paths they are for.
async function visit(url, options) {
  const jar = new URL(url).origin === new URL(start).origin ? [...cookies].map((pair) => pair.join('=')) : [];
  const response = await fetch(url, {
    ...options,
    redirect: 'manual',
    headers: { cookie: jar.join('; ') },
    signal: AbortSignal.timeout(20_000),
  });
  for (const line of response.headers.getSetCookie()) {
    const [name, value] = line.split(';')[0].split(/=(.*)/s);
    if (value) cookies.set(name, value);
    else cookies.delete(name);
  }
  const next = response.headers.get('location');
  return next ? visit(new URL(next, url).href) : { url, status: response.status, page: await response.text() };
}

function found(page, pattern) {
  const match = pattern.exec(page);
  assert.ok(match, `no ${pattern} in ${page}`);
  return match[1];
}

const action = (page) => found(page, /action="([^"]+)"/);

const { page: login } = await visit(start);
assert.match(login, /name="prompt" value="login"/);
const { page: consent } = await visit(action(login), form({ prompt: 'login', login: 'user', password: 'any' }));
assert.match(consent, /name="prompt" value="consent"/);
const end = answer === 'consent'
  ? await visit(action(consent), form({ prompt: 'consent' }))
  : await visit(found(consent, /href="([^"]+\/abort)"/));
console.log(`${end.status} ${end.url}\n${end.page}`);
