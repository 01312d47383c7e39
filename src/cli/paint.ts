import { styleText } from "node:util";
import type { Io } from "./io.ts";

/** Colours a text, where the terminal shows colours and nobody asked for none. */
export function paint(io: Io, style: Parameters<typeof styleText>[0], text: string): string {
  // What the terminal can show was asked when the process began.
  return io.isColoured ? styleText(style, text, { validateStream: false }) : text;
}
