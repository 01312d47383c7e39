// For Prisma's own migrations with their engine in WebAssembly, which reaches the database by the driver adapter.
import { PrismaPg } from "@prisma/adapter-pg";
import pg from "pg";
import process from "node:process";
import { defineConfig } from "prisma/config";

// The adapter knows neither `name` nor `"char"`, of which the catalogs are full: they are text to it.
const { addFields } = pg.Result.prototype;
pg.Result.prototype.addFields = function (fields) {
  const isText = ({ dataTypeID }) => dataTypeID === 18 || dataTypeID === 19;
  addFields.call(
    this,
    fields.map((field) => isText(field) ? Object.assign(field, { dataTypeID: 25 }) : field),
  );
};

// The engine leaves a timer of its lock's running, which would keep the process for ten seconds.
const start = globalThis.setTimeout;
globalThis.setTimeout = (fn, delay, ...args) => {
  const timer = start(fn, delay, ...args);
  return delay === 10_000 ? timer.unref() : timer;
};

/** The adapter cuts a migration at each semicolon; Prisma's other engine sends it whole. */
const whole = (connection) =>
  Object.assign(connection, {
    executeScript: async (script) => void await connection.underlyingDriver().query(script),
  });

class Adapter extends PrismaPg {
  async connect() {
    return whole(await super.connect());
  }
}

export default defineConfig({
  schema: "prisma/schema.prisma",
  experimental: { adapter: true },
  engine: "js",
  adapter: () =>
    Promise.resolve(new Adapter({ connectionString: process.env.DATABASE_URL, allowExitOnIdle: true })),
});
