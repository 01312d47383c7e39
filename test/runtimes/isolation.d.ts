export function isolation(): Promise<string>;
export const EXPECTED: string;
