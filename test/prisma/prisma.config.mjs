// For Prisma's own migrations with their engine in WebAssembly, which reaches the database by the driver adapter.
import { PrismaPg } from "@prisma/adapter-pg";
import { ColumnTypeEnum } from "@prisma/driver-adapter-utils";
import { randomUUID } from "node:crypto";
import pg from "pg";
import process from "node:process";
import { defineConfig } from "prisma/config";

// The adapter knows neither `name` nor `"char"`, of which the catalogs are full. A name is text to it; the engine wants a
// `"char"` as a character, and panics ("unreachable") at a text, as soon as it describes a database that has tables.
const { addFields } = pg.Result.prototype;
let characters = [];
pg.Result.prototype.addFields = function (fields) {
  characters = fields.map(({ dataTypeID }) => dataTypeID === 18);
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

// Without a terminal `migrate dev` refuses, though it asks nothing.
process.stdin.isTTY = true;

/** The adapter cuts a migration at each semicolon; Prisma's other engine sends it whole. */
const mended = (connection) => {
  const { queryRaw } = connection;
  return Object.assign(connection, {
    executeScript: async (script) => void await connection.underlyingDriver().query(script),
    queryRaw: async (query) => {
      const result = await queryRaw.call(connection, query);
      const columnTypes = result.columnTypes.map((type, n) =>
        characters[n] ? ColumnTypeEnum.Character : type
      );
      return { ...result, columnTypes };
    },
  });
};

class Adapter extends PrismaPg {
  async connect() {
    return mended(await super.connect());
  }

  /** The adapter's own is a second connection to the first database, where that is named by a URL. */
  async connectToShadowDb() {
    const main = await this.connect();
    const name = `shadow_${randomUUID()}`;
    await main.executeScript(`create database "${name}"`);
    const shadow = await new Adapter({ ...this.config, connectionString: urlOf(name) }).connect();
    const { dispose } = shadow;
    return Object.assign(shadow, {
      dispose: async () => {
        await dispose.call(shadow);
        await main.executeScript(`drop database "${name}"`);
        await main.dispose();
      },
    });
  }
}

function urlOf(database) {
  const url = new URL(process.env.DATABASE_URL);
  url.pathname = database;
  return url.href;
}

export default defineConfig({
  schema: "prisma/schema.prisma",
  experimental: { adapter: true },
  engine: "js",
  adapter: () =>
    Promise.resolve(new Adapter({ connectionString: process.env.DATABASE_URL, allowExitOnIdle: true })),
});
