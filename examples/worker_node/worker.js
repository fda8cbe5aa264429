// A worker for Bourse in JavaScript. It follows docs/protocol.md; `npm ci` brings ZeroMQ, protobuf and CBOR.
import fs from "node:fs";
import * as cbor from "cborg";
import protobuf from "protobufjs";
import { Dealer } from "zeromq";

const proto = protobuf.loadSync(new URL("worker.proto", import.meta.url).pathname);
const ToNode = proto.lookupType("bourse.v1.ToNode");
const ToWorker = proto.lookupType("bourse.v1.ToWorker");

const functions = {
  greet: async (name) => `Hello, ${name}!`,
  slow: async (seconds) => new Promise((done) => setTimeout(() => done(seconds), seconds * 1000)),
  // Calls of a function by a function.
  greet_all: async (names) => calls("worker_node.greet", names.map((name) => [name])),
};

const socket = new Dealer();
const backlog = []; // invocations that have not started, with their arguments
const replies = new Map(); // by request: what goes on when its reply is there
let running = null; // the invocation that runs
let requests = 0;
let results = 0;
let sent = Promise.resolve();

// ZeroMQ for Node.js wants one send to end before the next begins.
function tell(message, payload = new Uint8Array()) {
  const frames = [ToNode.encode(ToNode.create(message)).finish(), payload];
  sent = sent.then(() => socket.send(frames));
  return sent;
}

// Calls functions of the grid, all at once, and waits for all of them.
async function calls(name, argumentLists) {
  const { call: parent, attempt } = running;
  const asked = argumentLists.map((args) => {
    const request = ++requests;
    tell({ call: { request, function: name, parent, attempt } }, cbor.encode([args, {}]));
    return request;
  });
  const answers = asked.map((request) => new Promise((done) => replies.set(request, done)));
  tell({ wait: { call: parent, attempt, requests: asked } });
  return (await Promise.all(answers)).map(([{ failure }, result]) => {
    if (failure) throw new Error(failure.message);
    return cbor.decode(result);
  });
}

async function next() {
  if (running || backlog.length === 0) return;
  const [invoke, payload] = backlog.shift();
  if (!invoke) return void tell({ bye: {} }).then(() => socket.close());
  running = invoke;
  const result = { call: invoke.call, attempt: invoke.attempt, seq: ++results };
  let body;
  try {
    const [args] = payload.length ? cbor.decode(payload) : [[]];
    body = cbor.encode(await functions[invoke.function](...args));
  } catch (error) {
    result.failure = { code: "function_error", type: error.name, message: error.message };
  }
  running = null;
  tell({ result }, body);
  next();
}

const same = (a, b) => a.attempt === b.attempt && Buffer.compare(a.call, b.call) === 0;

socket.connect(process.env.BOURSE_ENDPOINT);
const secret = fs.readFileSync(Number(process.env.BOURSE_SECRET_FD));
const offered = Object.entries({ greet: "name", slow: "seconds", greet_all: "names" });
const module = {
  name: process.env.BOURSE_MODULE,
  functions: offered.map(([name, p]) => ({ name, parameters: [{ name: p, type: "any", required: true, kind: 1 }] })),
};
tell({ hello: { versionMin: 1, versionMax: 1, role: 1, secret, module, pid: process.pid } });
for await (const [header, payload] of socket) {
  const { invoke, reply, ping, recall, stop, refused } = ToWorker.decode(header);
  if (refused) throw new Error(refused.failure.message);
  if (ping) tell({ pong: { nonce: ping.nonce } });
  if (invoke || stop) backlog.push([invoke, payload]);
  if (recall) {
    const asked = ([invoke]) => invoke && recall.calls.some((one) => same(one, invoke));
    const calls = backlog.filter(asked).map(([{ call, attempt }]) => ({ call, attempt }));
    backlog.splice(0, backlog.length, ...backlog.filter((one) => !asked(one)));
    tell({ recalled: { nonce: recall.nonce, calls } });
  }
  if (reply) {
    replies.get(Number(reply.request))?.([reply, payload]);
    replies.delete(Number(reply.request));
  }
  next();
}
