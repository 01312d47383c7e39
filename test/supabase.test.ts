import { PostgrestClient } from "@supabase/postgrest-js";
import fc from "fast-check";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { onWarning } from "../mod.ts";
import { contextHeaders } from "../src/adapters/supabase.ts";
import type { Database } from "../src/database/port.ts";
import { importChanges, seal as sealIn } from "../src/install/mod.ts";
import { onEachServer, type TestDatabase } from "./support/databases.ts";
import { BEMI, createSlot, install, maintain, runWorker, SCHEMA, track } from "./support/installation.ts";
import { FORMER_WORKER } from "./support/former-bemi.ts";
import { npmPackages } from "./support/npm-packages.ts";
import { postgrest, token } from "./support/postgrest.ts";
import { seen, TODOS } from "./support/todos.ts";

const supabase = npmPackages("supabase", ["@supabase/supabase-js@2.109.0"]);

// As Supabase has them: an API role for each kind of visitor, and default privileges that give them all that is new.
const HOST = `
  create role anon nologin; create role authenticated nologin; create role service_role nologin bypassrls;
  create role authenticator login noinherit;
  grant anon, authenticated, service_role to authenticator;`;
const DEFAULTS = `
  grant usage on schema public to anon, authenticated, service_role;
  alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
  alter default privileges in schema public grant all on functions to anon, authenticated, service_role;
  alter default privileges in schema public grant all on sequences to anon, authenticated, service_role;
  alter default privileges grant all on tables to anon, authenticated, service_role;
  alter default privileges grant all on functions to anon, authenticated, service_role;
  alter default privileges grant all on sequences to anon, authenticated, service_role;
  alter default privileges grant all on types to anon, authenticated, service_role;
  alter default privileges grant all on schemas to anon, authenticated, service_role;`;
const ROLES = ["anon", "authenticated", "service_role"];

type Real = TestDatabase & { url: string };

/** A database of the host's, for as long as `work` takes: roles are the cluster's. */
async function onHost(
  open: () => Promise<Real>,
  capture: "trigger" | "wal",
  work: (database: Real) => Promise<void>,
  isSealed = false,
): Promise<void> {
  await using database = await open();
  const { port, db } = database;
  await port.execute(HOST);
  try {
    await port.execute(DEFAULTS);
    await install(db);
    if (capture === "wal") await createSlot(db);
    await port.execute(TODOS);
    await track(db, "todos", { capture });
    if (isSealed) await sealIn(db, { schema: SCHEMA });
    await work(database);
  } finally {
    await port.execute(`drop owned by anon, authenticated, service_role, authenticator;
      drop role authenticator, anon, authenticated, service_role`);
  }
}

async function recorded(
  database: Real,
  capture: "trigger" | "wal",
): Promise<Awaited<ReturnType<typeof seen>>> {
  if (capture === "wal") await runWorker({ source: database.url, once: true }).finished;
  return await seen(database.port);
}

/** What an API role may do with anything of Bemi's. */
const apiRights = (port: Database): Promise<object[]> =>
  port.query(
    `select role, kind, name from (
      select 'schema' as kind, oid::regnamespace::text as name, has_schema_privilege(role, oid, 'usage, create') as may, role
      from pg_namespace, unnest($1::text::text[]) as role where oid = '${BEMI}'::regnamespace
      union all
      select 'relation', c.oid::regclass::text,
        case c.relkind when 'S' then has_sequence_privilege(role, c.oid, 'usage, select, update')
          else has_table_privilege(role, c.oid, 'select, insert, update, delete, truncate, references, trigger') end, role
      from pg_class c, unnest($1::text::text[]) as role
      where c.relnamespace = '${BEMI}'::regnamespace and c.relkind in ('r', 'p', 'v', 'S') or c.oid = 'public.changes'::regclass
      union all
      select 'function', p.oid::regprocedure::text, has_function_privilege(role, p.oid, 'execute'), role
      from pg_proc p, unnest($1::text::text[]) as role where p.pronamespace = '${BEMI}'::regnamespace
      union all
      select 'type', t.oid::regtype::text, has_type_privilege(role, t.oid, 'usage'), role
      from pg_type t, unnest($1::text::text[]) as role
      where t.typnamespace = '${BEMI}'::regnamespace and t.typtype = 'c' and t.typrelid in (select oid from pg_class where relkind = 'c')
    ) as rights where may order by 1, 2, 3`,
    [`{${ROLES.join()}}`],
  );

const USER = { sub: "7d0b", role: "authenticated", email: "zoë@example.com" };
const CONTEXT = { page: "/todos", email: "zoë@例.com", action: 'say "hi"\n' };

onEachServer("Supabase and PostgREST", (open) => {
  test.each(["trigger", "wal"] as const)(
    "claims and the client's header are stored apart, without state between requests, captured by %s",
    (capture) =>
      onHost(open, capture, async (database) => {
        // One connection, so that anything that stayed on it would show.
        await using api = await postgrest(database.connect({ username: "authenticator", max: 1 }));
        const client = new PostgrestClient(api.url, {
          headers: { authorization: `Bearer ${token(USER)}`, ...contextHeaders(CONTEXT) },
        });
        const anonymous = new PostgrestClient(api.url);
        const done = [
          await client.from("todos").insert({ task: "Sleep" }).select(),
          await anonymous.from("todos").insert([{ task: "Eat" }, { task: "Repeat" }]).select(),
          await client.from("todos").update({ is_completed: true }).eq("id", 1),
          await anonymous.from("todos").delete().eq("id", "2").setHeader(
            "x-bemi-context",
            contextHeaders({ page: "/bin" })["x-bemi-context"],
          ),
          await new PostgrestClient(api.url, { headers: { "x-bemi-context": "{no json" } }).from("todos")
            .insert({ task: "Still" }),
        ];
        expect(done.map(({ error }) => error)).toEqual(done.map(() => null));
        expect(done[0]?.data).toEqual([expect.objectContaining({ id: 1, task: "Sleep" })]);
        const changes = await recorded(database, capture);
        expect(changes.map(({ operation, key, context: { client, jwt, db } }) => {
          const { user, role } = db as { user: string; role: string };
          return [`${operation} ${key}`, client, jwt, `${user} as ${role}`];
        })).toEqual([
          ["CREATE 1", CONTEXT, USER, "authenticator as authenticated"],
          ["CREATE 2", undefined, { role: "anon" }, "authenticator as anon"],
          ["CREATE 3", undefined, { role: "anon" }, "authenticator as anon"],
          ["UPDATE 1", CONTEXT, USER, "authenticator as authenticated"],
          ["DELETE 2", { page: "/bin" }, { role: "anon" }, "authenticator as anon"],
          ["CREATE 4", undefined, { role: "anon" }, "authenticator as anon"],
        ]);
        expect(JSON.stringify(changes)).not.toMatch(/Bearer|eyJ/);
      }),
  );

  test.skipIf(!supabase)(
    "supabase-js sends it with all that it writes",
    () =>
      onHost(open, "wal", async (database) => {
        await using api = await postgrest(database.connect({ username: "authenticator", max: 1 }));
        const { createClient } = supabase?.require("@supabase/supabase-js") as {
          createClient(
            url: string,
            key: string,
            options: object,
          ): { from(table: string): PostgrestClient["from"] extends (name: string) => infer T ? T : never };
        };
        const key = token({ role: "service_role" });
        // It asks for /rest/v1.
        const fetchApi = (url: string | URL, init?: RequestInit): Promise<Response> =>
          fetch(String(url).replace("/rest/v1", ""), init);
        const client = createClient(api.url, key, {
          global: { headers: contextHeaders(CONTEXT), fetch: fetchApi },
          auth: { persistSession: false },
          // Before Node 22 it wants one, even where nothing is listened to.
          realtime: { transport: class {} },
        });
        expect((await client.from("todos").insert({ task: "Sleep" })).error).toBeNull();
        expect(await recorded(database, "wal")).toEqual([
          expect.objectContaining({
            context: expect.objectContaining({
              client: CONTEXT,
              jwt: { role: "service_role" },
              db: expect.objectContaining({ user: "authenticator", role: "service_role" }),
            }),
          }),
        ]);
      }),
  );

  test.each([["trigger", false], ["wal", false], ["wal", true]] as const)(
    "no API role reads the log or forges what the database adds, captured by %s, sealed: %s",
    (capture, isSealed) =>
      onHost(open, capture, async (database) => {
        const { port, db } = database;
        await port.execute(`update ${BEMI}.settings set partitions_ahead = 6`);
        await maintain(db);
        // Whatever default privileges gave was taken back, also from what was made later.
        expect(await apiRights(port)).toEqual([]);

        await using api = await postgrest(database.connect({ username: "authenticator", max: 1 }));
        const forged = { db: { user: "postgres" }, jwt: { sub: "boss" }, client: { page: "/x" }, user_id: 1 };
        for (const role of ROLES) {
          const client = new PostgrestClient(api.url, {
            headers: {
              authorization: `Bearer ${token({ role, sub: "7", db: { user: "postgres" } })}`,
              ...contextHeaders(forged),
              "bemi.context": JSON.stringify(forged),
              "request.jwt.claims": '{"sub": "boss"}',
            },
          });
          expect((await client.from("todos").insert({ task: role })).error).toBeNull();
          for (
            const refused of [
              await client.from("changes").select(),
              await client.from("changes").insert({ operation: "CREATE" }),
              await client.from("changes").delete().eq("operation", "CREATE"),
              await client.rpc("set_config", {
                setting_name: "bemi.context",
                new_value: "{}",
                is_local: false,
              }),
              await client.rpc("pg_logical_emit_message", {
                transactional: true,
                prefix: "_bemi",
                content: "{}",
              }),
              await client.rpc("ensure_view"),
            ]
          ) expect(refused.error?.code, role).toMatch(/^(42501|42883|42P01)$/);
        }
        // A token that somebody signed himself.
        const stranger = new PostgrestClient(api.url, {
          headers: { authorization: `Bearer ${token(USER)}x` },
        });
        expect((await stranger.from("todos").insert({ task: "no" })).error?.code).toBe("PGRST301");

        // With SQL of their own, as through a function that somebody exposed.
        const sql = database.connect({ username: "authenticator", max: 1 });
        for (const role of ROLES) {
          for (
            const statement of [
              `select from ${BEMI}.changes`,
              `select from ${BEMI}.changes_default`,
              "select from public.changes",
              `insert into ${BEMI}.changes select`,
              `select secret from ${BEMI}.seal`,
              `select ${BEMI}.current_context()`,
              `select ${BEMI}.untrack('todos')`,
              `select nextval('${BEMI}.change_sequence')`,
              `update ${BEMI}.settings set retention = '1 second'`,
              "alter table todos disable trigger all",
            ]
          ) {
            await expect(
              sql.begin((tx) => tx.unsafe(`set local role ${role}; ${statement}`)),
              `${role}: ${statement}`,
            ).rejects.toMatchObject({ code: "42501" });
          }
          if (capture === "wal" && !isSealed) continue;
          await sql.begin(async (tx) => {
            await tx.unsafe(`set local role ${role}`);
            await tx`select set_config('bemi.context', ${JSON.stringify({ ...forged, mine: true })}, true)`;
            await tx`insert into todos (task) select ${role} where pg_logical_emit_message(true, '_bemi', format(
              '1%s %s %s %s %L %L %L %L %L %L %L ', null, 'todos'::regclass::oid, 1, 'INSERT', 'postgres', 'postgres', '',
              '{"user_id": 1}', null, null, repeat('0', 64))) is not null`;
          });
        }
        const changes = await recorded(database, capture);
        expect(changes).toHaveLength(capture === "wal" && !isSealed ? 3 : 6);
        for (const { after, context } of changes) {
          const { db, jwt, client, user_id, mine } = context as Record<string, unknown>;
          expect(db).toMatchObject({ user: "authenticator", role: after.task });
          if (mine === true) {
            // What an application may say, and nothing else.
            expect([user_id, jwt, client]).toEqual([1, undefined, undefined]);
          } else {
            expect([user_id, jwt, client]).toEqual([
              undefined,
              { role: after.task, sub: "7", db: { user: "postgres" } },
              forged,
            ]);
          }
        }
      }, isSealed),
  );

  test("an owner that is no superuser, as on such hosts, gives them no more", async () => {
    await using database = await open();
    const { port } = database;
    const [{ name } = { name: "" }] = await port.query<{ name: string }>("select current_database() as name");
    await port.execute(`${HOST} create role host_owner login replication;
      grant create on database ${name} to host_owner; grant create on schema public to host_owner;
      set role host_owner; ${DEFAULTS.replace(/grant usage.*;/, "")} reset role;
      grant usage on schema public to anon, authenticated, service_role`);
    const owner = database.connect({ username: "host_owner", max: 1 });
    try {
      await owner.unsafe(TODOS);
      await install(owner);
      await createSlot(owner);
      await track(owner, "todos", { capture: "trigger" });
      await owner.unsafe(`update ${BEMI}.settings set partitions_ahead = 6`);
      await maintain(owner);
      expect(await apiRights(port)).toEqual([]);
      await using api = await postgrest(database.connect({ username: "authenticator", max: 1 }));
      expect((await new PostgrestClient(api.url).from("todos").insert({ task: "Sleep" })).error).toBeNull();
      expect((await new PostgrestClient(api.url).from("changes").select()).error?.code).toBe("42501");
      expect((await seen(port)).map(({ context }) => context.db)).toEqual([
        expect.objectContaining({ user: "authenticator", role: "anon" }),
      ]);
    } finally {
      await owner.end();
      await port.execute(
        `drop owned by host_owner cascade; drop owned by anon, authenticated, service_role, authenticator;
        drop role host_owner, authenticator, anon, authenticated, service_role`,
      );
    }
  });

  test("what another Bemi's table let API roles read by default, the view does not", async () => {
    await using database = await open();
    const { port, db } = database;
    await port.execute(`${HOST} create role analyst nologin`);
    try {
      await port.execute(
        `${DEFAULTS} ${FORMER_WORKER} drop publication dbz_publication; grant select on changes to analyst`,
      );
      await install(db);
      await importChanges(db, "changes", { schema: SCHEMA });
      const may = await port.query(
        `select r, has_table_privilege(r, 'public.changes', 'select') as may
        from unnest(array['analyst', 'anon', 'authenticated', 'service_role']) as r order by r`,
      );
      expect(may).toEqual([
        { r: "analyst", may: true },
        { r: "anon", may: false },
        { r: "authenticated", may: false },
        { r: "service_role", may: false },
      ]);
    } finally {
      await port.execute(`drop owned by anon, authenticated, service_role, authenticator, analyst;
        drop role authenticator, anon, authenticated, service_role, analyst`);
    }
  });
});

test("headers are printable ASCII, bounded, and hold the context", () => {
  const warnings: string[] = [];
  onWarning((message) => warnings.push(message));
  fc.assert(
    fc.property(fc.dictionary(fc.string({ unit: "binary" }), fc.jsonValue()), (context) => {
      const header = contextHeaders(context as Record<string, unknown>)["x-bemi-context"] ?? "";
      expect(header).toMatch(/^\{[ -~]*\}$/);
      expect(header.length).toBeLessThanOrEqual(4096);
      new Headers(contextHeaders(context as Record<string, unknown>));
      const isWhole = JSON.stringify(context).length < 500;
      const isStorable = !/\\u(?:0000|d[89a-f])/i.test(JSON.stringify(context));
      if (isWhole && isStorable) expect(JSON.parse(header)).toEqual(JSON.parse(JSON.stringify(context)));
    }),
    { numRuns: 300 },
  );
  const large = contextHeaders({ page: "/", text: "é".repeat(2000), user_id: 1 })["x-bemi-context"] ?? "";
  expect(JSON.parse(large)).toEqual({ page: "/", user_id: 1, bemi_dropped: ["text"] });
  const cycle: Record<string, unknown> = { page: "/" };
  cycle.self = cycle;
  expect(contextHeaders(cycle)).toEqual({ "x-bemi-context": '{"page":"/"}' });
  for (const none of [undefined, null, 7, [1]]) expect(contextHeaders(none as never)).toEqual({});
  expect(warnings.length).toBeGreaterThan(1);
  onWarning();
});

test("the helper runs in browsers: it imports nothing of Node's", () => {
  const dist = fileURLToPath(new URL("../dist/src/", import.meta.url));
  const reached = new Set<string>();
  const follow = (file: string): void => {
    if (reached.has(file)) return;
    reached.add(file);
    const text = readFileSync(file, "utf8");
    for (const [, from = ""] of text.matchAll(/^(?:import|export)[^;]*?from "([^"]+)"/gm)) {
      expect(from, file).toMatch(/^\./);
      follow(fileURLToPath(new URL(from, `file://${file}`)));
    }
    expect(text).not.toMatch(/\b(?:process|Buffer|require)\b/);
  };
  follow(`${dist}adapters/supabase.js`);
  expect(reached.size).toBeGreaterThan(1);
});
