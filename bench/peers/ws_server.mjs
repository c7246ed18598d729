// A fan-out of given frames by node's `ws`, as its manual has it: no compression, one buffer per update.
// Frames are the lines of the file named as its argument. It prints `port N`, then obeys lines of its input, and
// answers each with `done UPDATES`: `paced COUNT MILLISECONDS` sends so many updates, one each so often;
// `unpaced MILLISECONDS` sends them as fast as the clients take them; `once` is `paced` with what there are frames of.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { WebSocketServer } from "ws";

const frames = readFileSync(process.argv[2]).toString().trimEnd().split("\n").map((line) => Buffer.from(line));
// Of one client, in bytes: the least that keeps the kernel's buffers busy.
const AHEAD = 16384;
const server = new WebSocketServer({ host: "127.0.0.1", port: 0, perMessageDeflate: false, backlog: 2048 });

function send(update) {
  const frame = frames[update % frames.length];
  for (const client of server.clients) client.send(frame, { binary: false });
}

function paced(count, period, done) {
  const began = performance.now();
  let update = 0;
  (function next() {
    if (update === count) return done(count);
    setTimeout(() => { send(update++); next(); }, Math.max(0, began + update * period - performance.now()));
  })();
}

function unpaced(length, done) {
  const until = performance.now() + length;
  let update = 0;
  (function next() {
    if (performance.now() >= until) return done(update);
    let free = true;
    for (const client of server.clients) free &&= client.bufferedAmount < AHEAD;
    if (free) send(update++);
    setImmediate(next);
  })();
}

server.on("listening", () => console.log(`port ${server.address().port}`));
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [what, ...given] = line.split(" ");
    const done = (updates) => console.log(`done ${updates}`);
    if (what === "once") paced(frames.length, 50, done);
    else if (what === "paced") paced(Number(given[0]), Number(given[1]), done);
    else unpaced(Number(given[0]), done);
  })
  .on("close", () => process.exit());
