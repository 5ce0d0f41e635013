// What destinations lead to: services.mjs PORT TLS-PORT WIRE PROXY. A token service whose tokens tell what
// it was asked; on TLS-PORT, with the provider's certificate, a backend that tells whose certificate it was
// shown; and a wire to the PROXY, which prints the head of what is sent over it, a line of JSON each.
import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { connect, createServer as createWire } from 'node:net';
import { readFileSync } from 'node:fs';
import { text } from 'node:stream/consumers';

const [port, tlsPort, wire, proxy] = process.argv.slice(2).map(Number);

const grant = async (request, response) => {
  const asked = { path: request.url, body: Object.fromEntries(new URLSearchParams(await text(request))) };
  const token = Buffer.from(JSON.stringify(asked)).toString('base64url');
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ access_token: token, token_type: 'bearer', expires_in: 3600 }));
};

const tell = ({ socket }, response) => {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ caller: socket.getPeerCertificate().subject?.CN }));
};
const tls = {
  cert: readFileSync('provider.pem'), key: readFileSync('provider-key.pem'), requestCert: true, rejectUnauthorized: false,
};

const pass = (client) => {
  const far = connect(proxy, '127.0.0.1');
  client.once('data', (bytes) => console.log(JSON.stringify(bytes.toString('latin1').split('\r\n\r\n')[0].split('\r\n'))));
  for (const [one, other] of [[client, far], [far, client]]) one.on('error', () => other.destroy()).pipe(other);
};

const listening = (server, at) => new Promise((done) => { server.listen(at, '127.0.0.1', done); });
await Promise.all([
  listening(createServer(grant), port),
  listening(createTlsServer(tls, tell), tlsPort),
  listening(createWire(pass), wire),
]);
console.log('ready');
