// The arguments of gpu-verify and gpu-bench.

/** Takes `--only a,b` off the front: the names chosen, in the order of `names`, and what is left. */
function takeOnly(args, names) {
  if (args[0] !== '--only') return { only: names, rest: args };
  const [, list = '', ...rest] = args;
  const chosen = list.split(',');
  const unknown = chosen.filter((name) => !names.includes(name));
  if (unknown.length > 0) throw new Error(`there is no '${unknown.join()}': --only takes ${names.join()}`);
  return { only: names.filter((name) => chosen.includes(name)), rest };
}

const shapeOptions = ['--segments', '--dims', '--heads', '--streams'];

/** Of kernel_bench's arguments, pairs of a name and a value, those that say which shapes. */
function shapesAmong(args) {
  return args.filter((_, i) => shapeOptions.includes(args[i - (i % 2)]));
}

module.exports = { shapesAmong, takeOnly };
