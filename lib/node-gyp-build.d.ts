declare module 'node-gyp-build' {
  /** Loads build/Release or prebuilds/<platform> of the package in `folder`. */
  export default function load(folder: string): unknown;
}
