// A provider of others' making: provider.mjs PORT CALLBACK. Knows one client that authenticates in the
// header and one that does so in the body, with the characters that encodings get wrong.
// GET /journal tells what the token endpoint has done, and the codes and refresh tokens shown to it.
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

const journal = { refreshes: 0, ended: 0, errors: [], code: [], refresh_token: [] };
const note = ({ params }) => {
  for (const name of ['code', 'refresh_token']) if (params?.[name]) journal[name].push(params[name]);
};
provider.on('grant.success', ({ oidc }) => {
  note(oidc);
  if (oidc.params.refresh_token) journal.refreshes += 1;
});
provider.on('grant.error', ({ oidc }, { error, error_detail: detail }) => {
  note(oidc);
  journal.errors.push(`${error}: ${detail}`);
});
provider.on('grant.revoked', () => { journal.ended += 1; });

const answer = provider.callback();
createServer((request, response) => {
  if (request.url === '/journal') response.end(JSON.stringify(journal));
  else answer(request, response);
}).listen(port, '127.0.0.1', () => console.log('ready'));
