// A provider of others' making: provider.mjs PORT TLS-PORT CALLBACK. Knows a client that authenticates in
// the header and one that does so in the body, with the characters that encodings get wrong, and two that
// have the key of client.pem: one signs assertions with it, one shows the certificate on the TLS port.
// GET /journal tells what the token endpoint has done, the codes and refresh tokens shown to it, and which
// headers came with the last good request.
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { X509Certificate, createHash, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import Provider from 'oidc-provider';

const [port, tlsPort, callback] = process.argv.slice(2);
const client = (client_id, client_secret, token_endpoint_auth_method) => ({
  client_id,
  client_secret,
  token_endpoint_auth_method,
  redirect_uris: [callback],
  response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
});

const certificate = new X509Certificate(readFileSync('client.pem'));
const keyed = (client_id, token_endpoint_auth_method) => ({
  client_id,
  token_endpoint_auth_method,
  redirect_uris: [],
  response_types: [],
  grant_types: ['client_credentials'],
  jwks: {
    keys: [{
      ...certificate.publicKey.export({ format: 'jwk' }),
      x5c: [certificate.raw.toString('base64')],
      'x5t#S256': createHash('sha256').update(certificate.raw).digest('base64url'),
    }],
  },
});

// Short enough for a gateway to renew a token every other second, long enough for a slow machine.
const seconds = 4;
const shown = ({ socket }) => {
  const der = socket.getPeerCertificate?.()?.raw;
  return der && new X509Certificate(der);
};
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    client('by header', 's3cret:+%/&= ~', 'client_secret_basic'),
    client('by-body', 's3cret:+%/&= ~', 'client_secret_post'),
    keyed('by-assertion', 'private_key_jwt'),
    keyed('by-certificate', 'self_signed_tls_client_auth'),
  ],
  clientAuthMethods: [
    'client_secret_basic', 'client_secret_post', 'private_key_jwt', 'self_signed_tls_client_auth', 'none',
  ],
  scopes: ['openid', 'offline_access', 'orders'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: { AccessToken: seconds, ClientCredentials: 60, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600 },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
    mTLS: { enabled: true, selfSignedTlsClientAuth: true, getCertificate: shown },
  },
  cookies: { keys: [randomUUID()] },
});

const journal = { headers: [], refreshes: 0, ended: 0, errors: [], code: [], refresh_token: [] };
const note = ({ params }) => {
  for (const name of ['code', 'refresh_token']) if (params?.[name]) journal[name].push(params[name]);
};
provider.on('grant.success', ({ oidc, headers }) => {
  note(oidc);
  journal.headers = Object.keys(headers);
  if (oidc.params.refresh_token) journal.refreshes += 1;
});
provider.on('grant.error', ({ oidc }, { error, error_detail: detail }) => {
  note(oidc);
  journal.errors.push(`${error}: ${detail}`);
});
provider.on('grant.revoked', () => { journal.ended += 1; });

const callbackOf = provider.callback();
const answer = (request, response) => {
  if (request.url === '/journal') response.end(JSON.stringify(journal));
  else callbackOf(request, response);
};
const listening = (server, at) => new Promise((done) => { server.listen(at, '127.0.0.1', done); });
const tls = {
  cert: readFileSync('provider.pem'), key: readFileSync('provider-key.pem'), requestCert: true, rejectUnauthorized: false,
};
await Promise.all([listening(createServer(answer), port), listening(createTlsServer(tls, answer), tlsPort)]);
console.log('ready');
