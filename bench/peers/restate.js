// A Restate service: `node restate.js PORT`, with NODE_PATH where its SDK is.
const restate = require("@restatedev/restate-sdk");

const bench = restate.service({
  name: "bench",
  handlers: { echo: async (_context, body) => body },
});
restate.serve({ services: [bench], port: Number(process.argv[2]) });
