// node-redis and ioredis against the server, each with its default settings and with the other
// protocol version.
//
//     node check_node.mjs HOST:PORT
//
// Each library has an adapter for its differences: sending a command, subscribing, the form of maps.
// The checks are the same for both and assert replies. Keys are fresh for each run, so that the
// server need not be empty. node-redis handles push frames other than pub/sub in its own way:
// TL.FOLLOW is checked by check_redis_py.py.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';
import { RESP_TYPES, createClient } from 'redis';
import Redis from 'ioredis';

const require = createRequire(import.meta.url);
const RECEIVE_MS = 10_000;
const bytes = Buffer.from(Uint8Array.from({ length: 256 }, (_, value) => value));
const bodies = [Buffer.from('first'), Buffer.alloc(0), bytes, Buffer.from('two\nlines'), Buffer.alloc(100_000, 'x')];

// --- the libraries

async function nodeRedis(host, port, resp) {
  const client = createClient({ url: `redis://${host}:${port}`, ...(resp && { RESP: resp }) });
  client.on('error', stop);
  await client.connect();
  const binary = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  return {
    call: (...words) => binary.sendCommand(words.map(word)),
    info: () => client.info(),
    subscribe: async (kind, channel, receive) => {
      const subscriber = client.duplicate();
      await subscriber.connect();
      if (kind === 'message') await subscriber.subscribe(channel, receive, true);
      else await subscriber.sSubscribe(channel, receive, true);
      return () => subscriber.close();
    },
    close: () => client.close(),
  };
}

async function ioRedis(host, port, protocol) {
  const settings = protocol ? { protocol } : {};
  const client = new Redis(port, host, settings);
  client.on('error', stop);
  return {
    call: (name, ...words) => client.callBuffer(name, words.map(word)),
    info: () => client.info(),
    subscribe: async (kind, channel, receive) => {
      const subscriber = new Redis(port, host, settings);
      subscriber.on(`${kind}Buffer`, (from, payload) => from.toString() === channel && receive(payload));
      await (kind === 'message' ? subscriber.subscribe(channel) : subscriber.ssubscribe(channel));
      return () => subscriber.quit();
    },
    close: () => client.quit(),
  };
}

/** Both libraries would try to connect for ever. */
function stop(error) {
  console.error(`the connection to the server failed: ${error.message || error.code}`);
  process.exit(1);
}

function word(value) {
  return Buffer.isBuffer(value) ? value : String(value);
}

/** A map reply of any library and protocol version, its keys as text. */
function asMap(reply) {
  const pairs = Array.isArray(reply) ? reply.flatMap((key, at) => (at % 2 ? [] : [[key, reply[at + 1]]]))
    : reply instanceof Map ? [...reply] : Object.entries(reply);
  return Object.fromEntries(pairs.map(([key, value]) => [String(key), value]));
}

// --- the checks; each name says what it shows

const checks = {
  'INFO names a Redis version': async ({ info }) => {
    assert.match(await info(), /redis_version:7\./);
  },

  'appends are numbered and read back': async ({ call, key }) => {
    const timeline = key('read');
    for (const [at, body] of bodies.entries()) assert.equal(await call('TL.APPEND', timeline, body), at + 1);
    const entries = await call('TL.RANGE', timeline, '-', '+');
    assert.deepEqual(entries.map(([seq, , body]) => [seq, body]), bodies.map((body, at) => [at + 1, body]));
    const newest = await call('TL.REVRANGE', timeline, '+', '-', 'COUNT', 1);
    assert.deepEqual(newest, [await call('TL.LAST', timeline)]);
    assert.equal(await call('TL.GET', timeline, 6), null);
    const page = asMap(await call('TL.READ', timeline, 'AFTER', 3));
    assert.deepEqual([String(page.verdict), page.first, page.last, page.next, page.more], ['OK', 1, 5, 5, 0]);
    assert.deepEqual(page.entries, entries.slice(3));
    assert.equal(asMap(await call('TL.INFO', timeline)).count, 5);
  },

  'a fan-out reaches every key': async ({ call, key }) => {
    const keys = [key('conversation'), key('ann', 'sync'), key('bob', 'sync')];
    assert.equal(await call('TL.APPEND', keys[2], 'earlier'), 1);
    assert.deepEqual(await call('TL.FANOUT', 'to all', keys.length, ...keys), [1, 1, 2]);
    for (const each of keys) assert.equal(String((await call('TL.LAST', each))[2]), 'to all');
    const replies = await call('TL.MREAD', 2, keys[1], keys[2], 'AFTER', 1, 1);
    assert.deepEqual(replies.map(([name, read]) => [String(name), asMap(read).entries.length]), [[keys[2], 1]]);
  },

  'commands of one tick are answered in order': async ({ call, key }) => {
    const sent = Array.from({ length: 1000 }, (_, at) => call('TL.APPEND', key('pipeline'), at));
    assert.deepEqual(await Promise.all(sent), sent.map((_, at) => at + 1));
  },

  'refusals begin with their word': async ({ call, key }) => {
    await assert.rejects(call('TL.APPEND', 'nostore:x', 'body'), /NOSTORE/);
    await assert.rejects(call('TL.APPEND', key('errors')), /wrong number of arguments/);
    await assert.rejects(call('TL.NOSUCH'), /unknown command/);
    assert.equal(asMap(await call('TL.INFO', key('errors'))).last, 0);
  },

  'subscribers are sent each entry': async ({ call, key, subscribe }) => {
    for (const [kind, store] of [['message', 'messages'], ['smessage', 'sync']]) {
      const timeline = key('push', store);
      const received = [];
      let full;
      const arrived = new Promise((resolve) => { full = resolve; });
      const close = await subscribe(kind, timeline, (payload) => {
        if (received.push(payload) === bodies.length) full(true);
      });
      for (const body of bodies) await call('TL.APPEND', timeline, body);
      await within(arrived, `${kind}: ${received.length} of ${bodies.length} arrived`);
      const entries = await call('TL.RANGE', timeline, '-', '+');
      const payloads = entries.map(([seq, time, body]) => Buffer.concat([Buffer.from(`${seq} ${time}\n`), body]));
      assert.deepEqual(received, payloads);
      await close();
    }
  },
};

async function within(promise, sentence) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(sentence)), RECEIVE_MS); });
  await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

// --- the run

const [host, port] = (process.argv[2] ?? '').split(':');
if (!port) {
  console.error('usage: check_node.mjs HOST:PORT');
  process.exit(2);
}
const libraries = [['node-redis', 'redis', nodeRedis], ['ioredis', 'ioredis', ioRedis]];
const versions = [['default', undefined], ['RESP2', 2], ['RESP3', 3]];
for (const [label, packageName, open] of libraries) {
  const title = `${label} ${require(`${packageName}/package.json`).version}`;
  for (const [protocolLabel, protocol] of versions) {
    const stamp = `${label}-${protocolLabel}-${process.pid}-${Date.now()}`;
    const library = await open(host, Number(port), protocol);
    const subject = { ...library, key: (name, store = 'messages') => `${store}:${stamp}-${name}` };
    for (const [sentence, check] of Object.entries(checks)) {
      try {
        await check(subject);
      } catch (problem) {
        console.error(`${title} ${protocolLabel}: ${sentence}: ${problem.message}`);
        process.exit(1);
      }
    }
    await library.close();
    console.log(`ok ${title} ${protocolLabel}: ${Object.keys(checks).length} checks`);
  }
}
