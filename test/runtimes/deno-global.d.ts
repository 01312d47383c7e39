// What of Deno is used here.
declare const Deno: {
  serve(
    options: {
      readonly port: number;
      readonly hostname?: string;
      readonly onListen: (address: { readonly port: number }) => void;
    },
    answer: (request: Request) => Response | Promise<Response>,
  ): { readonly addr: { readonly port: number }; shutdown(): Promise<void> };
};
