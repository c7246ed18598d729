/**
 * One stream of the service over a WebSocket that comes back by itself, continuing after the last message it had.
 *
 * States: `connecting` until the first message; `live`; `stale` while the service has lost its database;
 * `reconnecting` between connections. Delays double from a quarter of a second to eight, with jitter, so that the
 * clients of a service that restarts do not all come at once. A connection without a message for fifteen seconds is
 * dead: the service sends a heartbeat after five.
 */

import { admitted } from "./access";

export type State = "connecting" | "live" | "stale" | "reconnecting";

/** A message as it came; members and types that are not known are ignored by whoever takes it. */
export interface Message {
  readonly type: string;
  readonly cursor?: string;
  readonly feed?: string;
  readonly recovered?: boolean;
  readonly [member: string]: unknown;
}

export interface Listener {
  message(message: Message): void;
  state?(state: State): void;
}

const FIRST_DELAY_MS = 250;
const LAST_DELAY_MS = 8_000;
const SILENCE_MS = 15_000;
const LOOK_MS = 1_000;

export class Stream {
  #socket: WebSocket | undefined;
  #cursor: string | undefined;
  #state: State = "connecting";
  #failures = 0;
  #attempt = 0;
  #heardAt = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  readonly #watch: ReturnType<typeof setInterval>;
  readonly #base: URL;
  readonly #address: URL;
  readonly #listener: Listener;
  readonly #wake = (): void => this.#look();
  readonly #online = (): void => this.#reconnect();

  /** `path` is relative to `base`, the service's address, such as `ws/transactions/PEPE`. */
  constructor(base: string | URL, path: string, history: number, listener: Listener) {
    this.#base = new URL(base);
    this.#address = new URL(path, base);
    this.#address.protocol = this.#address.protocol.replace("http", "ws");
    this.#address.searchParams.set("history", String(history));
    this.#listener = listener;
    // Timers of a hidden page are slowed down: it catches up when it is shown.
    document.addEventListener("visibilitychange", this.#wake);
    addEventListener("online", this.#online);
    this.#watch = setInterval(this.#wake, LOOK_MS);
    void this.#connect();
  }

  get state(): State {
    return this.#state;
  }

  /** End for good; nothing is told any more. */
  close(): void {
    clearInterval(this.#watch);
    clearTimeout(this.#retry);
    document.removeEventListener("visibilitychange", this.#wake);
    removeEventListener("online", this.#online);
    this.#drop();
  }

  async #connect(): Promise<void> {
    this.#drop();
    const attempt = this.#attempt;
    if (this.#cursor !== undefined) this.#address.searchParams.set("cursor", this.#cursor);
    let address: URL;
    try {
      address = await admitted(this.#base, this.#address);
    } catch {
      if (attempt === this.#attempt) this.#lost();
      return;
    }
    if (attempt !== this.#attempt) return;
    const socket = new WebSocket(address);
    this.#socket = socket;
    this.#heardAt = performance.now();
    socket.onmessage = (event) => this.#heard(String(event.data));
    socket.onclose = () => this.#lost();
  }

  #heard(text: string): void {
    this.#heardAt = performance.now();
    this.#failures = 0;
    const message = JSON.parse(text) as Message;
    if (message.type === "heartbeat") {
      this.#tell(message.feed === "stale" ? "stale" : "live");
    } else if (this.#state !== "stale") {
      this.#tell("live");
    }
    this.#listener.message(message);
    // After the listener: what it could not take comes again.
    if (message.cursor !== undefined) this.#cursor = message.cursor;
  }

  #lost(): void {
    this.#drop();
    this.#tell("reconnecting");
    const most = Math.min(LAST_DELAY_MS, FIRST_DELAY_MS * 2 ** this.#failures++);
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#connect(), most * (0.5 + Math.random() / 2));
  }

  #reconnect(): void {
    if (this.#socket === undefined) {
      clearTimeout(this.#retry);
      void this.#connect();
    }
  }

  #look(): void {
    if (this.#socket !== undefined && performance.now() - this.#heardAt > SILENCE_MS) this.#lost();
  }

  #tell(state: State): void {
    if (state === this.#state) return;
    this.#state = state;
    this.#listener.state?.(state);
  }

  // Whatever is on its way ends too.
  #drop(): void {
    this.#attempt++;
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket === undefined) return;
    socket.onmessage = socket.onclose = null;
    // Browsers report a socket that is closed before it is open as an error.
    if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close();
    else socket.close();
  }
}
