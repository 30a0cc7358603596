import { fail } from '../errors';
import { native } from '../native';
import { copyBytes } from '../snapshot/bytes';
import { draftOf, makeFrom, readStreamFile } from '../snapshot/stream';
import type { SchedulerCore } from './core';
import type { Member } from './member';

/** ScheduledStream.snapshot: wherever the state is, in the file of a stream. */
export async function snapshotMember(core: SchedulerCore, member: Member): Promise<Uint8Array> {
  if (member.requests.length > 0 || member.outside)
    throw fail('ERR_BUSY', 'Expected no pending request of the stream for snapshot() but there is one');
  const { tokens } = member;
  const image = await core.tiers.copy(member);
  core.checkMember(member); // a closed one has no image
  const file = draftOf(member.config, tokens);
  if (image) file.data.set(image);
  return file.seal();
}

/** StreamScheduler.restore. */
export async function restoreMember(core: SchedulerCore, bytes: unknown): Promise<Member> {
  const file = await readStreamFile(copyBytes(bytes));
  const { given, tokens, image } = file;
  const member = core.open(given);
  try {
    if (tokens === 0) return member;
    // It must be able to go to the device; a copy, because the file is larger and would stay.
    native.closeStream(await makeFrom(core.handle, file));
    core.checkMember(member);
    member.tokens = tokens;
    await core.tiers.adopt(member, image.slice());
    core.checkMember(member);
    return member;
  } catch (error) {
    core.closeMember(member);
    throw error;
  }
}
