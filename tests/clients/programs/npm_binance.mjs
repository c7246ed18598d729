// The npm package binance, REST and streams, pointed at base URLs; what the streams say are events.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { MainClient, WebsocketClient } = createRequire(process.env.CLIENTS + "/")("binance");
const [base, sockets] = process.argv.slice(2);
const rest = new MainClient({ baseUrl: base });
const logger = { trace() {}, info() {}, error: console.error };
const streams = new WebsocketClient({ wsUrl: sockets, beautify: false }, logger);
const tell = (message) => process.stdout.write(JSON.stringify(message) + "\n");

// The package adds some members of its own.
streams.on("message", ({ wsMarket, streamName, wsKey, isWSAPIResponse, ...told }) => tell({ event: told }));
streams.on("response", (message) => tell({ event: { response: message } }));
streams.on("exception", (message) => tell({ event: { exception: String(message.message ?? message) } }));

for await (const line of createInterface({ input: process.stdin })) {
  const [id, name, given] = JSON.parse(line);
  const [place, method] = name.includes(".") ? name.split(".") : ["rest", name];
  try {
    const result = await (place === "streams" ? streams : rest)[method](...given);
    tell({ id, result: place === "streams" ? null : result });
  } catch (error) {
    tell({ id, error: [String(error.code ?? error.body?.code), String(error.message ?? error.body?.msg)] });
  }
}
process.exit(0);
