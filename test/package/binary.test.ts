// What the built file asks of the machine it is loaded on.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, run } from './run.js';

const addon = join(root, 'build/Release/infini_stream.node');
const onLinux = process.platform === 'linux' ? describe : describe.skip;

/** The newest libraries that the addon may ask for: those of Ubuntu 22.04 and RHEL 9. */
const newest: Record<string, string> = { GLIBC: '2.34', GLIBCXX: '3.4.29', CXXABI: '1.3.13', GCC: '11.0' };

function isNewer(version: string, limit: string): boolean {
  return version.localeCompare(limit, 'en', { numeric: true }) > 0;
}

onLinux('the addon', () => {
  // A newer system's headers bind to newer symbols: there the addon is right for that system, but no prebuild.
  const header = process.report?.getReport() as { header: { glibcVersionRuntime?: string } };
  const glibc = header.header.glibcVersionRuntime ?? 'musl';
  const buildsPrebuilds = /^2\.\d+$/.test(glibc) && !isNewer(glibc, '2.36');

  (buildsPrebuilds ? test : test.skip)('runs on glibc 2.34 and its libstdc++', () => {
    const symbols = run('readelf', ['--wide', '--version-info', addon]);
    const needs = [...symbols.matchAll(/Name: (GLIBC|GLIBCXX|CXXABI|GCC)_([\d.]+)/g)];
    expect(needs.map(([, library]) => library)).toContain('GLIBCXX'); // libstdc++ is dynamic
    const tooNew = needs.filter(([, library, version]) => isNewer(version, newest[library]));
    expect(tooNew.map(([text]) => text)).toEqual([]);
  });

  test('needs no NVIDIA library', () => {
    const dynamic = run('readelf', ['--wide', '--dynamic', addon]);
    const needed = [...dynamic.matchAll(/\(NEEDED\).*\[(.*)\]/g)].map(([, library]) => library);
    expect(needed).toContain('libc.so.6');
    expect(needed.filter((library) => /cuda|nv|cublas|nccl/i.test(library))).toEqual([]);
  });

  test('stays in memory once loaded, for the sake of its threads', () => {
    expect(run('readelf', ['--wide', '--dynamic', addon])).toMatch(/FLAGS_1.*NODELETE/);
  });

  test('exports the Node-API entry points only', () => {
    const symbols = run('nm', ['--dynamic', '--defined-only', '--format=posix', addon]);
    const names = symbols.split('\n').flatMap((line) => line.split(' ')[0] || []);
    expect(names).toContain('napi_register_module_v1');
    expect(names.filter((name) => !/^(napi|node_api)_/.test(name))).toEqual([]);
  });
});

/** The architectures in nvcc's fat binaries: 'sm_90' for machine code, 'compute_80' for PTX. */
function architectures(file: string): Set<string> {
  const bytes = readFileSync(file);
  const found = new Set<string>();
  for (let at = bytes.indexOf('50ed55ba', 'hex'); at >= 0; at = bytes.indexOf('50ed55ba', at + 4, 'hex')) {
    const begin = at + bytes.readUInt16LE(at + 6);
    const end = begin + Number(bytes.readBigUInt64LE(at + 8));
    for (let entry = begin; entry < end; ) {
      const kind = { 1: 'compute', 2: 'sm' }[bytes.readUInt16LE(entry)];
      found.add(`${kind}_${bytes.readUInt32LE(entry + 28)}`);
      entry += bytes.readUInt32LE(entry + 4) + Number(bytes.readBigUInt64LE(entry + 8));
    }
  }
  return found;
}

onLinux('the CUDA kernels', () => {
  const cache = readFileSync(join(root, 'build-cmake/CMakeCache.txt'), 'utf8');
  const option = (name: string) => new RegExp(`^${name}:\\w+=(.*)$`, 'm').exec(cache)?.[1];
  const hasCuda =
    option('INFINI_CUDA') !== 'OFF' && !/NOTFOUND$/.test(option('CMAKE_CUDA_COMPILER') ?? 'NOTFOUND');
  const isRelease = option('INFINI_CUDA_ARCHITECTURES') === 'all';

  (hasCuda ? test : test.skip)(
    'have code of their own, and PTX for every other GPU (skipped without nvcc)',
    () => {
      const found = architectures(addon);
      expect([...found]).toEqual(expect.arrayContaining(['compute_80', expect.stringMatching(/^sm_/)]));
      if (isRelease) expect([...found].sort()).toEqual(['compute_80', 'sm_100', 'sm_120', 'sm_80', 'sm_90']);
    },
  );

  test('leave the addon below 12 MB', () => {
    expect(readFileSync(addon).length).toBeLessThan(12e6);
  });
});

onLinux('the CPU kernels', () => {
  const folder = join(root, 'build-cmake/CMakeFiles');
  const built = readdirSync(folder).flatMap((name) => /^kernels_(\w+)\.dir$/.exec(name)?.[1] ?? []);
  const levels = process.arch === 'x64' ? ['portable', 'avx2', 'avx512', 'amx'] : ['portable'];

  test('are compiled for each SIMD level', () => {
    expect(built.sort()).toEqual([...levels].sort());
  });

  // The linker keeps one copy of an inline function that several objects hold. If the copy compiled for AVX-512
  // were kept, an older processor would die of an illegal instruction.
  test.each(levels)('for %s share no inline function with the rest of the addon', (level) => {
    const object = join(folder, `kernels_${level}.dir/native/cpu/kernels.cc.o`);
    const symbols = run('nm', ['--demangle', '--defined-only', object]).split('\n');
    const shareable = symbols.filter((line) => /^\S+ [WVu] /.test(line));
    expect(shareable.filter((line) => !line.includes(`infini::cpu::${level}::`))).toEqual([]);
  });
});
