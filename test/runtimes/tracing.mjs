// For `node --import`: an SDK that prints each span as it ends.
import { trace } from "@opentelemetry/api";
import { BasicTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";

const exporter = {
  export: (spans, done) => {
    for (const { name, attributes, instrumentationScope } of spans) {
      console.log([instrumentationScope.name, name, attributes["bemi.written"]].join(" ").trim());
    }
    done({ code: 0 });
  },
  shutdown: () => Promise.resolve(),
};
trace.setGlobalTracerProvider(
  new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }),
);
