import { describeVariant } from './variant.js';

describeVariant('plain');
