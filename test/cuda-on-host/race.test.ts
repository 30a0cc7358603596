import { describeVariant } from './variant.js';

describeVariant('race');
