import { basename } from "node:path";

export interface ImageOptions {
  /** What npm installs: a name with a version, or the path of a tarball. */
  readonly package: string;
  /** The port for probes and metrics. */
  readonly port: number;
}

/** A Dockerfile for the worker, which takes the variables that Bemi's own image takes. */
export function dockerfile({ package: name, port }: ImageOptions): string {
  const isTarball = name.endsWith(".tgz");
  const installed = isTarball ? `./${basename(name)}` : name;
  return `# docker build -t bemi-worker . && docker run -e DB_HOST=db -e DB_PORT=5432 -e DB_NAME=app -e DB_USER=bemi_worker -e DB_PASSWORD=... bemi-worker
# Several may run for one database: one reads, the others stand by.
FROM node:24-slim
ENV NODE_ENV=production
WORKDIR /bemi
${isTarball ? `COPY ${name} ./\n` : ""}RUN npm install --omit=dev --no-audit --no-fund ${installed}
USER node
EXPOSE ${port}
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["node", "-e", "fetch('http://127.0.0.1:${port}/healthz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# SIGTERM ends it after the transaction under way.
STOPSIGNAL SIGTERM
ENTRYPOINT ["node_modules/.bin/bemi-poll"]
CMD ["--listen", "0.0.0.0:${port}"]
`;
}
