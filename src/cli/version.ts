/** This package's version, as its manifests have it. */
export const VERSION: string = "0.1.0-dev.0";
