import type { MemoryStream } from '../../lib';
import { accidents } from '../snapshot/spoil';
import { Rng } from '../support/rng';
import { Subject, Violation } from './subject';
import type { World } from './world';

/** A snapshot, which must be of its moment, and what becomes of its bytes: a stream like it, or a refusal. */
export function snapshotCall(world: World): void {
  const { rng, hostile } = world;
  const subject = world.subject();
  const revive = rng.pick([reviveWhole, reviveSpoiled]);
  const later = new Rng(rng.bits()); // world.rng is another operation's by then
  if (rng.uniform() < 0.2) reviveHostile(world);
  hostile.notes.push('snapshot', revive.name);
  const slot = subject.slot();
  const end = subject.begin(!subject.closed);
  world.follow(
    'snapshot',
    () => subject.stream.snapshot(),
    (bytes) => {
      slot(() => revive(world, bytes as Uint8Array, subject, later));
      end();
    },
    (code, error) => {
      slot();
      if (code !== 'ERR_CLOSED' || !subject.closed)
        throw new Violation('a snapshot failed', { cause: error });
      end();
    },
  );
}

/** The bytes are the caller's again at once. */
function reviveWhole(world: World, bytes: Uint8Array, subject: Subject, rng: Rng): void {
  const device = rng.pick([world.safe, ...world.devices]);
  const twin = subject.copyOfTwin();
  world.follow(
    'restore',
    () => {
      const call = device.restore(bytes);
      bytes.fill(7);
      return call;
    },
    (value) => {
      const stream = value as MemoryStream;
      if (stream.closed) return twin?.close(); // with its device
      const heir = new Subject(stream, twin ?? stream.fork());
      heir.compare();
      world.adopt(heir);
    },
    (code, error) => {
      if (code !== 'ERR_CLOSED' || device === world.safe)
        throw new Violation('a snapshot was refused', { cause: error });
      twin?.close();
    },
  );
}

function reviveSpoiled(world: World, bytes: Uint8Array, _: Subject, rng: Rng): void {
  const name = rng.pick(Object.keys(accidents));
  const spoiled = accidents[name](bytes, rng);
  if (!spoiled || spoiled.equals(bytes)) return;
  world.follow(
    `restore ${name}`,
    () => world.safe.restore(spoiled),
    () => {
      throw new Violation(`a snapshot ${name} was restored`);
    },
    (code, error) => {
      if (code !== 'ERR_SNAPSHOT') throw new Violation(`a snapshot ${name} failed`, { cause: error });
    },
  );
}

function reviveHostile(world: World): void {
  const given = world.hostile.anything();
  world.follow(
    'restore',
    () => world.safe.restore(given as Uint8Array),
    () => {
      throw new Violation('nonsense was restored');
    },
    () => {},
  );
}
