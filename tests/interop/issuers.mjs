// An issuer of others' making: issuers.mjs PORT. Gives its one client JWT access tokens for urn:orders.
// POST /rotate makes a new key, which signs from then on; the one before is still published, those before it
// are not.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const [port] = process.argv.slice(2);
const role = 'ESBMessaging.send';
const orders = {
  audience: 'urn:orders',
  scope: role,
  accessTokenTTL: 600,
  accessTokenFormat: 'jwt',
  jwt: { sign: { alg: 'RS256' } },
};
const made = () => ({
  ...generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' }),
  kid: randomUUID(),
  use: 'sig',
  alg: 'RS256',
});

// Of keys that fit alike, the first one signs.
const providerOf = (keys) => new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'theirs',
    client_secret: 'their secret',
    token_endpoint_auth_method: 'client_secret_post',
    redirect_uris: [],
    response_types: [],
    grant_types: ['client_credentials'],
  }],
  scopes: [role],
  jwks: { keys },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: { enabled: true, defaultResource: () => 'urn:orders', getResourceServerInfo: () => orders },
  },
  cookies: { keys: [randomUUID()] },
}).callback();

let keys = [made()];
let current = providerOf(keys);
const rotate = () => {
  keys = [made(), keys[0]];
  current = providerOf(keys);
};
const server = createServer((request, response) => {
  if (request.url !== '/rotate') current(request, response);
  else response.end(rotate());
});
server.listen(port, '127.0.0.1', () => console.log('ready'));
