// SAP's Cloud SDK, in a folder with binding.json and xsuaa.json: destinations.mjs PROVIDER REFRESH-TOKEN JWT.
// NODE_EXTRA_CA_CERTS has to be set before node starts.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { getAllDestinationsFromDestinationService, getDestination } from '@sap-cloud-sdk/connectivity';
import { executeHttpRequest } from '@sap-cloud-sdk/http-client';

const [provider, refreshToken, jwt] = process.argv.slice(2);
const bound = (label, file) => [{ name: label, label, tags: [label], credentials: JSON.parse(readFileSync(file, 'utf8')) }];
process.env.VCAP_SERVICES = JSON.stringify({
  xsuaa: bound('xsuaa', 'xsuaa.json'),
  destination: bound('destination', 'binding.json'),
});

const find = (destinationName, options) => getDestination({ destinationName, useCache: false, ...options });

// What the target was told by a call; `to` is a destination or a name.
async function call(to) {
  const destination = typeof to === 'string' ? { destinationName: to, useCache: false } : to;
  const { data } = await executeHttpRequest(destination, { method: 'get', url: 'orders' });
  return data;
}
const bearer = ({ headers }) => headers.authorization.match(/^Bearer (.+)$/)[1];

// The provider says that the token is good, and whose it is.
async function known(token, client_id = 'by-body') {
  const body = new URLSearchParams({ token, client_id: 'by-body', client_secret: 's3cret:+%/&= ~' });
  const said = await (await fetch(`${provider}/token/introspection`, { method: 'POST', body })).json();
  assert.equal(said.active, true);
  assert.equal(said.client_id, client_id);
}

// What happened is at the end of a chain of causes.
const why = (error) => (error.cause instanceof Error ? `${error.message}: ${why(error.cause)}` : error.message);
const fails = (name, wanted) => assert.rejects(call(name), (error) => { assert.match(why(error), wanted); return true; });

// What the token service was asked, which its token tells.
const asked = (token) => JSON.parse(Buffer.from(token, 'base64url'));

async function credentials(to) {
  const told = await call(to);
  assert.equal(told.headers['x-interop'], 'of the destination');
  assert.equal(told.path, '/crm/orders?interop=a%20b');
  await known(bearer(told));
}

async function foundFirst() {
  const found = await find('credentials');
  const [{ value, expiresIn }] = found.authTokens;
  assert.ok(Number(expiresIn) > 0);
  assert.equal(bearer(await call(found)), value);
}

async function refreshed() {
  const found = await find('refresh', { refreshToken });
  const token = bearer(await call(found));
  assert.equal(token, found.authTokens[0].value);
  await known(token);
}

async function open() {
  const found = await find('open');
  assert.deepEqual(found.authTokens, []);
  assert.equal((await call('open')).headers.authorization, undefined);
}

async function basic() {
  const wanted = `Basic ${Buffer.from('user:päss:word').toString('base64')}`;
  assert.equal((await call('basic')).headers.authorization, wanted);
}

async function password() {
  const { body } = asked(bearer(await call('password')));
  assert.deepEqual(body, {
    grant_type: 'password', username: 'user', password: 'p+ss w%rd', client_id: 'id', client_secret: 'secret',
  });
}

async function common(options) {
  const found = await find('common', options);
  assert.equal(asked(bearer(await call(found))).path, '/demo/token');
}

const notFound = async () => assert.equal(await find('nobody'), null);

async function all() {
  const found = await getAllDestinationsFromDestinationService({ useCache: false });
  const names = found.map(({ name }) => name);
  for (const name of ['sample', 'credentials', 'own']) assert.ok(names.includes(name), `no ${name} in ${names}`);
}

async function own() {
  assert.equal((await call('own')).path, '/instance/orders');
}

async function code() {
  const found = await find('sample');
  assert.equal(found.authentication, 'OAuth2AuthorizationCode');
  assert.deepEqual(found.authTokens, []);
  await fails('sample', /OAuth2AuthorizationCode.*not supported by the SAP Cloud SDK/);
}

const wrong = () => fails('wrong', /failed in all cases.*invalid_client/s);

async function certificate(name) {
  assert.equal((await call(name)).caller, 'client');
}

const checks = [
  ['OAuth2ClientCredentials, headers and queries', () => credentials('credentials')],
  ['OAuth2ClientCredentials, found first', foundFirst],
  ['OAuth2RefreshToken', refreshed],
  ['NoAuthentication', open],
  ['BasicAuthentication', basic],
  ['OAuth2Password', password],
  ['Common, the tenant of the binding', common],
  ["Common, the tenant of a caller's token", () => common({ jwt })],
  ['nobody of that name', notFound],
  ['all destinations', all],
  ["the instance's own before everybody's", own],
  ['OAuth2AuthorizationCode is found and not called', code],
  ['a wrong secret', wrong],
  ['ClientCertificateAuthentication by PKCS#12, a server of another CA', () => certificate('shown-p12')],
  ['ClientCertificateAuthentication by PEM, a server of another CA', () => certificate('shown-pem')],
];

for (const [name, run] of checks) {
  try {
    await run();
    console.log(`ok destinations Cloud SDK: ${name}`);
  } catch (error) {
    console.log(`not ok destinations Cloud SDK: ${name}: ${why(error).replaceAll('\n', ' ')}`);
  }
}
