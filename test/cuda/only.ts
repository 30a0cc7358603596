import { emulated, onCuda } from '../support/device';

type Body = (() => void) | (() => Promise<void>);

/** What only the CUDA backend has to show. On the CPU it is skipped, and jest's summary says so. */
export function cudaTest(name: string, body: Body, timeout?: number): void {
  (onCuda ? test : test.skip)(onCuda ? name : `${name} (needs INFINI_TEST_DEVICE=cuda)`, body, timeout);
}

/** What needs a device that can be told to fail. */
export function emulatedTest(name: string, body: Body, timeout?: number): void {
  (emulated ? test : test.skip)(
    emulated ? name : `${name} (needs INFINI_TEST_DEVICE=cuda-emulated)`,
    body,
    timeout,
  );
}
