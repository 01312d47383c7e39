// A todo application on Prisma with @bemi-db/prisma, run where its packages and its generated client are.
const { createRequire } = require("node:module");
const process = require("node:process");

const load = createRequire(`${process.cwd()}/package.json`);
const { PrismaClient } = load("@prisma/client");
const { bemiMiddleware, mergeBemiContext, PrismaPg, withBemiExtension } = load("@bemi-db/prisma");

const adapter = new PrismaPg({ connectionString: process.env.DATABASE_URL });
const prisma = withBemiExtension(new PrismaClient({ adapter }), {
  injectSqlInContext: process.env.INJECT_SQL === "1",
});

const request = (context, handle) =>
  new Promise((done, fail) => bemiMiddleware(() => context)({}, {}, () => handle().then(done, fail)));

async function main() {
  const { todo } = prisma;
  await request(
    { userId: 1, email: "zoë@例.com", path: "/a%40b?x=/y" },
    () => todo.create({ data: { task: "Sleep" } }),
  );
  await request({ userId: 2 }, () => todo.createMany({ data: [{ task: "Eat" }, { task: 'say "hi"' }] }));
  await request({ userId: 3 }, async () => {
    mergeBemiContext({ step: "late" });
    await todo.update({ where: { id: 1n }, data: { is_completed: true } });
  });
  await request(
    { userId: 4 },
    () => todo.updateMany({ where: { task: "Eat" }, data: { is_completed: true } }),
  );
  await request({ userId: 5 }, () => todo.delete({ where: { id: 3n } }));
  await Promise.all(
    [6, 7, 8].map((userId) => request({ userId }, () => todo.create({ data: { task: `of ${userId}` } }))),
  );
  await todo.create({ data: { task: "of nobody" } });
  await prisma.$disconnect();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
