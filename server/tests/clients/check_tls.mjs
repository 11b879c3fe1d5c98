// node-redis and ioredis over TLS, with and without a certificate of their own; part of check_tls.py.
//
//     node check_tls.mjs PORT FOLDER
//
// FOLDER has ca.crt, client.crt and client.key.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createClient } from 'redis';
import Redis from 'ioredis';

const [port, folder] = process.argv.slice(2);
const ca = readFileSync(`${folder}/ca.crt`);
const own = { cert: readFileSync(`${folder}/client.crt`), key: readFileSync(`${folder}/client.key`) };
const large = 'x'.repeat(500_000);

/** Both libraries would try to connect for ever. */
function stop(error) {
  console.error(`the connection failed: ${error.message}`);
  process.exit(1);
}

for (const identity of [{}, own]) {
  const client = createClient({ socket: { host: 'localhost', port: Number(port), tls: true, ca, ...identity } });
  client.on('error', stop);
  await client.connect();
  assert.equal(await client.sendCommand(['ECHO', large]), large);
  assert.equal((await Promise.all(Array.from({ length: 100 }, () => client.ping()))).length, 100);
  await client.close();
}
console.log('ok node-redis over TLS');

for (const identity of [{}, own]) {
  const client = new Redis(Number(port), 'localhost', { tls: { ca, ...identity } });
  client.on('error', stop);
  assert.equal(await client.echo(large), large);
  assert.equal((await Promise.all(Array.from({ length: 100 }, () => client.ping()))).length, 100);
  await client.quit();
}
console.log('ok ioredis over TLS');
