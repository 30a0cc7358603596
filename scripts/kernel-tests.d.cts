export type Variant = 'plain' | 'race' | 'asan';
export const variants: Variant[];
export const environment: NodeJS.ProcessEnv;
export function buildKernelTests(variant: Variant, root?: string): string;
export function listKernelTests(folder: string, parts?: string[]): string[];
