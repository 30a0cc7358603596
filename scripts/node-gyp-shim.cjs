#!/usr/bin/env node
// prebuildify can only call node-gyp. This stands in its place: whatever the arguments, it builds with CMake
// into the folder where prebuildify looks for the result.

const path = require('node:path');
const { build, releaseOptions, releaseTree } = require('./build.cjs');

build({ tree: releaseTree(), options: releaseOptions, to: path.resolve('build/Release') });
