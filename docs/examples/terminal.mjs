// A terminal of one user: it keeps the lines it shows, and the cursor that belongs to them, in one
// file. See docs/messaging.md.
//     node terminal.mjs HOST:PORT USER FILE          each line of input, `conversation text`, is sent
import { randomUUID } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as pause } from 'node:timers/promises';
import { ErrorReply, createClient } from 'redis';

const [address, user, file] = process.argv.slice(2);
const options = { url: `redis://${address}`, RESP: 3, socket: { reconnectStrategy: 200 } };
const connect = () => createClient(options).on('error', () => {}).connect();
// Blocking commands have a connection of their own.
const [reading, sending] = await Promise.all([connect(), connect()]);
let state = existsSync(file) ? JSON.parse(readFileSync(file)) : null;
// Retries for ever. A sync may be repeated since it has a cursor, a send since it has an ID.
async function call(client, ...words) {
  for (;;) {
    try { return await client.sendCommand(words.map(String)); } catch (error) {
      if (error instanceof ErrorReply) throw error;
      await pause(200);
    }
  }
}
// The cursor first, then the newest entries of each conversation: entries that arrive twice are
// harmless.
async function startAgain(why) {
  console.log('start', why);
  const cursor = await call(reading, 'IM.TAIL', user);
  state = { shown: {}, read: {} };
  for (let after = '', listed; !listed || after; after = listed.next) {
    listed = await call(reading, 'IM.CONVERSATIONS', user, 'AFTER', after);
    for (const { conv, read } of listed.items) {
      state.read[conv] = read;
      const newest = await call(reading, 'IM.HISTORY', conv, user, 'COUNT', 50);
      for (const entry of newest.reverse()) apply(conv, ...entry);
    }
  }
  save(cursor);
}
// Escape sequences and line ends in a body or an id must not control the screen. The client has
// replaced bytes that are not UTF-8 by U+FFFD.
const shown = (value) => String(value).replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
function apply(conv, seq, time, sender, kind, body) {
  const lines = state.shown[conv] ??= {};
  if (['message', 'join', 'leave'].includes(kind)) lines[seq] = [sender, kind, body];
  else if (kind === 'edit' && lines[seq]) lines[seq][2] = body;
  else if (kind === 'recall' || kind === 'hide') delete lines[seq];
  else if (kind === 'read') state.read[conv] = Math.max(seq, state.read[conv] ?? 0);
  console.log([conv, seq, sender, kind, body].map(shown).join(' '));
}
function save(cursor) {
  state.cursor = cursor;
  writeFileSync(`${file}.new`, JSON.stringify(state));
  renameSync(`${file}.new`, file);
}
let sent = Promise.resolve(); // One after the other. An ID that is kept with its text until the reply survives this process too.
const send = (conv, text) => sent = sent.then(() => call(sending, 'IM.SEND', conv, user, text, 'ID', randomUUID()))
  .catch((refusal) => console.log('refused:', shown(refusal.message)));
createInterface({ input: process.stdin }).on('line', (line) => send(...line.match(/^(\S*) ?(.*)/).slice(1)));
if (!state) await startAgain('NEW');
for (;;) { // Catching up and staying live are one: while something is lacking, BLOCK does not wait.
  const page = await call(reading, 'IM.SYNC', user, state.cursor, 'COUNT', 10, 'BLOCK', 2000);
  if (page.verdict !== 'OK') await startAgain(page.verdict); // TRIMMED: away too long. EPOCH, FUTURE: another history.
  else { page.entries.forEach((entry) => apply(...entry)); save(page.cursor); }
}
