// A provider of others' making: provider.mjs PORT CALLBACK. Knows one client that authenticates in the
// header and one that does so in the body, with the characters that encodings get wrong.
// GET /journal tells what the token endpoint has done, with the refresh tokens that it was shown.
import { createServer } from 'node:http';
import { randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const [port, callback] = process.argv.slice(2);
const client = (client_id, client_secret, token_endpoint_auth_method) => ({
  client_id,
  client_secret,
  token_endpoint_auth_method,
  redirect_uris: [callback],
  response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token', 'client_credentials'],
});

// Short enough for a gateway to renew a token every other second, long enough for a slow machine.
const seconds = 4;
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    client('by header', 's3cret:+%/&= ~', 'client_secret_basic'),
    client('by-body', 's3cret:+%/&= ~', 'client_secret_post'),
  ],
  scopes: ['openid', 'offline_access', 'orders'],
  pkce: { required: () => true },
  rotateRefreshToken: true,
  ttl: { AccessToken: seconds, ClientCredentials: 60, RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600 },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    introspection: { enabled: true },
  },
  cookies: { keys: [randomUUID()] },
});

const journal = { authorization_code: 0, refresh_token: 0, client_credentials: 0, revoked: 0, errors: [], shown: [] };
provider.on('grant.success', ({ oidc: { params } }) => {
  journal[params.grant_type] += 1;
  if (params.refresh_token) journal.shown.push(params.refresh_token);
});
provider.on('grant.error', (_, { error, error_detail }) => journal.errors.push(`${error}: ${error_detail ?? ''}`));
provider.on('grant.revoked', () => { journal.revoked += 1; });

const answer = provider.callback();
createServer((request, response) => {
  if (request.url === '/journal') response.end(JSON.stringify(journal));
  else answer(request, response);
}).listen(port, '127.0.0.1', () => console.log('ready'));
