import { errorClasses } from '../../lib/errors';
import { native } from '../../lib/native';

test('the codes and classes of lib/errors.ts are those of the addon', () => {
  const classes = Object.entries(errorClasses).map(([code, errorClass]) => [code, errorClass.name]);
  expect(native.errorTable()).toEqual(Object.fromEntries(classes));
});

test('they are the codes of the contract', () => {
  expect(Object.entries(errorClasses)).toEqual([
    ['ERR_INVALID_ARG_TYPE', TypeError],
    ['ERR_DTYPE', TypeError],
    ['ERR_OUT_OF_RANGE', RangeError],
    ['ERR_SHAPE', RangeError],
    ['ERR_NON_FINITE', RangeError],
    ['ERR_OUT_OF_MEMORY', Error],
    ['ERR_CLOSED', Error],
    ['ERR_BUSY', Error],
    ['ABORT_ERR', Error],
    ['ERR_NO_DEVICE', Error],
    ['ERR_MODEL', Error],
    ['ERR_SNAPSHOT', Error],
    ['ERR_DEVICE', Error],
  ]);
});
