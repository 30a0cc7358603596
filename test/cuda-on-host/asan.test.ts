import { describeVariant } from './variant.js';

describeVariant('asan', ['small']);
