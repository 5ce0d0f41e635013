// Clients for node: clients.mjs FOLDER. NODE_EXTRA_CA_CERTS has to be set before node starts.
import { readFileSync } from 'node:fs';
import assert from 'node:assert/strict';
import xssec from '@sap/xssec';
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';
import { ClientCredentials } from 'simple-oauth2';
import { Agent, fetch as fetchByUndici } from 'undici';

const keys = `${process.argv[2]}/keys`;
const read = (name) => JSON.parse(readFileSync(`${keys}/${name}.json`, 'utf8'));
const secretKey = read('demo-sender').oauth;
const certificateKey = read('cert').oauth;
const instance = read('instance');

const flow = `${secretKey.url}/http/orders/1`;
const issuer = new URL(secretKey.tokenurl);
const scope = `${instance.xsappname}.ESBMessaging.send`;

// The fetch that node has built in cannot show a client certificate.
const certified = new Agent({ connect: { cert: certificateKey.certificate, key: certificateKey.key } });
const fetchWithCertificate = (url, options) => fetchByUndici(url, { ...options, dispatcher: certified });

async function call(token) {
  const response = await fetch(flow, { headers: { Authorization: `Bearer ${token}` } });
  assert.equal(response.status, 200, await response.text());
}

// What is asked is granted to the letter, and without asking all that there is.
async function grantsScope(grant) {
  for (const asked of [scope, undefined]) {
    const answer = await grant(asked && { scope: asked });
    assert.equal(answer.scope, scope);
    await call(answer.access_token);
  }
}

async function sapXssec(credentials) {
  const service = new xssec.XsuaaService({ ...instance, ...credentials });
  const { access_token: jwt } = await service.getClientCredentialsToken();
  const context = await xssec.createSecurityContext(service, { jwt });
  assert.equal(context.checkLocalScope('ESBMessaging.send'), true);
  assert.equal(context.checkLocalScope('Other.send'), false);
  await call(jwt);
}

async function openidClient(algorithm, authentication, fetcher = fetch) {
  const options = { algorithm, [openid.customFetch]: fetcher };
  const config = await openid.discovery(issuer, secretKey.clientid, undefined, authentication, options);
  await grantsScope((parameters) => openid.clientCredentialsGrant(config, parameters));
}

async function oauth4webapi(algorithm, authentication, fetcher = fetch) {
  const options = { [oauth.customFetch]: fetcher };
  const discovered = await oauth.discoveryRequest(issuer, { algorithm, ...options });
  const server = await oauth.processDiscoveryResponse(issuer, discovered);
  const client = { client_id: secretKey.clientid };
  await grantsScope(async (parameters = {}) => {
    const response = await oauth.clientCredentialsGrantRequest(server, client, authentication, parameters, options);
    return oauth.processClientCredentialsResponse(server, client, response);
  });
}

async function simpleOauth2(options) {
  const client = new ClientCredentials({
    client: { id: secretKey.clientid, secret: secretKey.clientsecret },
    auth: { tokenHost: secretKey.url, tokenPath: '/oauth/token' },
    options,
  });
  const { token } = await client.getToken({});
  assert.ok(token.expires_at > new Date());
  await call(token.access_token);
}

const discoveries = { 'OpenID discovery': 'oidc', 'OAuth discovery': 'oauth2' };

// The same methods, which both libraries of this author name alike.
const authentications = (library) => ({
  client_secret_basic: [library.ClientSecretBasic(secretKey.clientsecret)],
  client_secret_post: [library.ClientSecretPost(secretKey.clientsecret)],
  tls_client_auth: [library.TlsClientAuth(), fetchWithCertificate],
});

const discovering = (name, library, run) =>
  Object.entries(discoveries).flatMap(([discovery, algorithm]) =>
    Object.entries(authentications(library)).map(([method, authentication]) => [
      `${name}: ${discovery}, ${method}`,
      () => run(algorithm, ...authentication),
    ]),
  );

const checks = [
  ['@sap/xssec: secret', () => sapXssec(secretKey)],
  ['@sap/xssec: certificate', () => sapXssec({ ...certificateKey, certurl: certificateKey.url })],
  ...discovering('openid-client', openid, openidClient),
  ...discovering('oauth4webapi', oauth, oauth4webapi),
  ['simple-oauth2: header, strict', () => simpleOauth2({})],
  ['simple-oauth2: header, loose', () => simpleOauth2({ credentialsEncodingMode: 'loose' })],
  ['simple-oauth2: body', () => simpleOauth2({ authorizationMethod: 'body' })],
];

// Libraries wrap what happened: the reason is at the end of the chain of causes.
const why = (error) => (error.cause instanceof Error ? `${error.message}: ${why(error.cause)}` : error.message);

for (const [name, run] of checks) {
  try {
    await run();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`not ok ${name}: ${why(error).replaceAll('\n', ' ')}`);
  }
}
await certified.close();
