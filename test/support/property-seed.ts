import process from "node:process";
import fc from "fast-check";

// The gate checks the same examples wherever it runs; SEED=random, or a number, explores others.
const { SEED = "1" } = process.env;
fc.configureGlobal(SEED === "random" ? {} : { seed: Number(SEED) });
