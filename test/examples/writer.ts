import type { Session } from '../../lib';
import type { Rng } from '../support/rng';
import { eventsOf, type Service } from './service';

/** What the stream took, in order: tokens that were fed, or so many that it generated, of which these were received. */
export type Step = { fed: number[] } | { generated: number; received: number[] };

const lengthOf = (step: Step) => ('fed' in step ? step.fed.length : step.generated);

/**
 * Writes to one stream of the service and keeps the books of what was acknowledged. When the service dies it asks the next
 * one for the number of tokens: all that was acknowledged must be there, and of the request that was not answered either all
 * or nothing, or of a generation some tokens, no fewer than were received.
 */
export class Writer {
  readonly steps: Step[] = [];
  /** Requests that were answered in full, and those that were not but took effect. */
  acknowledged = 0;
  unanswered = 0;
  #pending: Step | undefined;

  constructor(
    readonly user: string,
    readonly id: string,
    readonly rng: Rng,
    readonly vocabulary: number,
  ) {}

  get tokens(): number {
    return this.steps.reduce((sum, step) => sum + lengthOf(step), 0);
  }

  /** Until `enough` says so, or the service dies. */
  async write(service: Service, enough: () => boolean): Promise<void> {
    try {
      await this.#settle(service);
      while (!enough()) {
        if (this.steps.length > 0 && this.rng.int(0, 3) === 0) await this.#generate(service);
        else await this.#feed(service);
        this.#pending = undefined;
        this.acknowledged++;
      }
    } catch (error) {
      if (error instanceof TypeError) return; // what fetch says of a connection that breaks
      throw error;
    }
  }

  async #feed(service: Service): Promise<void> {
    const fed = Array.from({ length: this.rng.int(1, 60) }, () => this.rng.int(0, this.vocabulary - 1));
    this.#pending = { fed };
    const { status, body } = await service.ask(this.user, `/streams/${this.id}/tokens`, {
      body: { tokens: fed, at: this.tokens },
    });
    this.steps.push({ fed });
    expect({ status, body }).toEqual({ status: 200, body: { tokens: this.tokens, taken: fed.length } });
  }

  async #generate(service: Service): Promise<void> {
    const maxTokens = this.rng.int(1, 8);
    const received: number[] = [];
    this.#pending = { generated: maxTokens, received };
    const place = `/streams/${this.id}/generate`;
    const response = await service.request(this.user, place, { body: { maxTokens } });
    expect(response.status).toBe(200);
    const before = this.tokens;
    let last = '';
    for await (const { name, data } of eventsOf(response)) {
      last = name;
      if (name !== 'token') continue;
      received.push(data.token);
      expect(data.tokens).toBe(before + received.length);
    }
    expect({ last, length: received.length }).toEqual({ last: 'end', length: maxTokens });
    this.steps.push({ generated: maxTokens, received });
  }

  /** What became of the request that the death of the service left without an answer. */
  async #settle(service: Service): Promise<void> {
    const { status, body } = await service.ask(this.user, `/streams/${this.id}`);
    expect(status).toBe(200);
    const extra = body.tokens - this.tokens;
    const pending = this.#pending ?? { fed: [] };
    if ('fed' in pending) {
      expect([0, pending.fed.length]).toContain(extra);
      if (extra > 0) this.steps.push(pending);
    } else {
      expect(extra).toBeGreaterThanOrEqual(pending.received.length);
      expect(extra).toBeLessThanOrEqual(pending.generated);
      if (extra > 0) this.steps.push({ ...pending, generated: extra });
    }
    if (extra > 0) this.unanswered++;
    this.#pending = undefined;
  }

  /** The same without a service and without interruption: says the same tokens. */
  async repeat(session: Session): Promise<void> {
    for (const step of this.steps) {
      if ('fed' in step) await session.feed(step.fed);
      else {
        const { tokens } = await session.generate({ maxTokens: step.generated });
        expect([...tokens.slice(0, step.received.length)]).toEqual(step.received);
      }
    }
  }
}
