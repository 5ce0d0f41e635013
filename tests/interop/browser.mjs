// A user in front of the provider's own pages: browser.mjs URL consent|deny. In Chromium, logs in, says yes
// or no, and prints status and address of the page at which it ends, and the text shown there. That page
// must have a Content-Security-Policy and keep to it. Needs certs/server.pem, the gateway's.
import assert from 'node:assert/strict';
import { X509Certificate, createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import puppeteer from 'puppeteer-core';

const [start, answer] = process.argv.slice(2);
const timeout = 20_000;

// Chromium does not know the demo's CA; the gateway's key is the only one that it takes unseen.
const { publicKey } = new X509Certificate(readFileSync('certs/server.pem'));
const pin = createHash('sha256').update(publicKey.export({ type: 'spki', format: 'der' })).digest('base64');

const browser = await puppeteer.launch({
  executablePath: '/usr/bin/chromium',
  pipe: true,
  timeout,
  protocolTimeout: timeout,
  args: [
    // root cannot have one
    '--no-sandbox',
    '--no-proxy-server',
    // the provider's pages ask for a font from elsewhere
    '--host-resolver-rules=MAP localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
    `--ignore-certificate-errors-spki-list=${pin}`,
  ],
});
const page = await browser.newPage();
page.setDefaultTimeout(timeout);

// What the browser says against the present page, but for its status and its icon.
let complaints = [];
page.on('framenavigated', () => { complaints = []; });
page.on('console', (message) => {
  const text = message.text();
  const { url = '' } = message.location();
  const status = url === page.url() && text.startsWith('Failed to load resource: the server responded with');
  if (message.type() === 'error' && !status && !url.endsWith('/favicon.ico')) complaints.push(text);
});

const text = () => page.$eval('body', (body) => body.innerText);

async function click(selector) {
  const [response] = await Promise.all([page.waitForNavigation(), page.click(selector)]);
  return response;
}

try {
  await page.goto(start);
  await page.type('input[name=login]', 'user');
  await page.type('input[name=password]', 'any');
  await click('button[type=submit]');
  assert.ok(await page.$('input[name=prompt][value=consent]'), 'no question for consent');
  const end = await click(answer === 'consent' ? 'button[type=submit]' : 'a[href$="/abort"]');
  console.log(`${end.status()} ${end.url()}\n${await text()}`);
  assert.ok(end.headers()['content-security-policy'], 'no Content-Security-Policy');
  assert.ok(!complaints.length, `the browser complains: ${complaints.join(' ')}`);
} catch ({ message }) {
  console.error(`${page.url()} ${await text().catch(() => '')}\n${message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
