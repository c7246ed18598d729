import assert from "node:assert/strict";
import { test } from "node:test";
import { Bars } from "../src/bars";
import type { Message } from "../src/stream";
import { Ticks } from "../src/ticks";
import { bar, type Bar } from "../src/udf";
import { seeded } from "./random";

const made = (time: number, volume: number): Bar =>
  bar(time, { open: "1", high: "1", low: "1", close: "1", volume: String(volume) });
const native = (one: Bar): object => ({ open_time: one.time, ...one.text });
const told = (type: string, one: Bar): Message => ({ type, kline: native(one) });

/** The library's side: what it has, how often it was asked to forget it, and that no tick goes back. */
class Library {
  readonly bars = new Bars();
  resets = 0;
  last = -Infinity;
  readonly ticks: Ticks;

  constructor(given: readonly Bar[]) {
    this.have(given);
    this.ticks = new Ticks(given, (one) => this.tick(one), () => this.resets++);
  }

  have(given: readonly Bar[]): void {
    this.bars.replace(given);
    this.last = given.at(-1)?.time ?? -Infinity;
  }

  tick(one: Bar): void {
    assert.ok(one.time >= this.last, `time violation: ${one.time} after ${this.last}`);
    this.last = one.time;
    this.bars.put(one);
  }

  has(): [number, number][] {
    return this.bars.all.map((one) => [one.time, one.volume]);
  }
}

test("a snapshot adds what came since history was given", () => {
  const library = new Library([made(1, 5), made(2, 1)]);
  library.ticks.take({ type: "snapshot", klines: [made(1, 5), made(2, 3), made(4, 1)].map(native) });
  assert.deepEqual(library.has(), [[1, 5], [2, 3], [4, 1]]);
  assert.equal(library.resets, 0);
});

test("a token without history gets its bars from the snapshot", () => {
  const library = new Library([]);
  library.ticks.take({ type: "snapshot", klines: [made(3, 1), made(4, 1)].map(native) });
  assert.deepEqual(library.has(), [[3, 1], [4, 1]]);
  assert.equal(library.resets, 0);
});

test("a snapshot that does not reach back to what was given asks for history", () => {
  const library = new Library([made(1, 1)]);
  const many = Array.from({ length: 100 }, (_, at) => native(made(at + 10, 1)));
  library.ticks.take({ type: "snapshot", klines: many });
  assert.equal(library.resets, 1);
});

test("an older bar asks for history, once it has changed", () => {
  const library = new Library([made(1, 1), made(2, 1)]);
  library.ticks.take(told("kline", made(3, 1)));
  library.ticks.take(told("kline", made(2, 1)));
  assert.equal(library.resets, 0, "the bar was closed, nothing else");
  library.ticks.take(told("revision", made(2, 2)));
  assert.equal(library.resets, 1);
  assert.deepEqual(library.has(), [[1, 1], [2, 1], [3, 1]]);
});

test("what comes while history is on its way is not lost", () => {
  const library = new Library([made(1, 1), made(2, 1)]);
  library.ticks.take(told("revision", made(1, 2)));
  library.ticks.take(told("kline", made(3, 1)));
  // Read before bar 3.
  const given = [made(1, 2), made(2, 1)];
  library.have(given);
  library.ticks.again(given);
  assert.deepEqual(library.has(), [[1, 2], [2, 1], [3, 1]]);
  assert.equal(library.resets, 1);
});

test("a stream that could not be continued asks for history and takes what there is then", () => {
  const library = new Library([made(5, 9), made(6, 9)]);
  library.ticks.take({ type: "snapshot", recovered: false, klines: [native(made(2, 1))] });
  assert.equal(library.resets, 1);
  library.have([made(2, 1)]);
  library.ticks.again([made(2, 1)]);
  library.ticks.take(told("kline", made(3, 1)));
  assert.deepEqual(library.has(), [[2, 1], [3, 1]]);
});

test("a library that asks by itself is not told older bars", () => {
  const library = new Library([made(1, 1), made(2, 1)]);
  const given = [made(1, 1), made(2, 2), made(4, 1)];
  library.have(given);
  library.ticks.again(given);
  library.ticks.take(told("kline", made(2, 2)));
  library.ticks.take(told("kline", made(4, 2)));
  assert.deepEqual(library.has(), [[1, 1], [2, 2], [4, 2]]);
});

test("a library that asked by itself too early is told what it has missed", () => {
  const library = new Library([made(1, 1)]);
  library.ticks.take(told("kline", made(2, 1)));
  library.have([made(1, 1)]);
  library.ticks.again([made(1, 1)]);
  assert.deepEqual(library.has(), [[1, 1], [2, 1]]);
  library.ticks.take(told("kline", made(3, 1)));
  library.have([made(1, 1)]);
  library.ticks.again([made(1, 1)]);
  assert.equal(library.resets, 1, "two bars may go back for somebody else");
});

test("bars that were given to another listener are still told", () => {
  const library = new Library([made(1, 1)]);
  library.ticks.again([made(1, 1), made(2, 1)]);
  library.ticks.take(told("kline", made(2, 1)));
  assert.deepEqual(library.has(), [[1, 1], [2, 1]]);
});

test("while a reset is still to come nothing goes back, and it is still answered", () => {
  const library = new Library([made(1, 1), made(2, 1)]);
  library.ticks.take(told("revision", made(1, 2)));
  const given = [made(1, 2), made(2, 1), made(4, 1)];
  library.have(given);
  library.ticks.again(given, true);
  library.ticks.take(told("kline", made(3, 1)));
  library.ticks.again([...given.slice(0, 2), made(3, 1), made(4, 1)]);
  library.have([...given.slice(0, 2), made(3, 1), made(4, 1)]);
  library.ticks.take(told("kline", made(4, 2)));
  assert.deepEqual(library.has(), [[1, 2], [2, 1], [3, 1], [4, 2]]);
});

test("history that does not reach up to what the stream began with is asked for again", () => {
  const library = new Library([made(1, 1)]);
  const many = Array.from({ length: 100 }, (_, at) => made(at + 50, 1));
  library.ticks.take({ type: "snapshot", klines: many.map(native) });
  library.have([made(1, 1), made(2, 1)]);
  library.ticks.again([made(1, 1), made(2, 1)]);
  assert.equal(library.resets, 2);
  library.have([made(1, 1), ...many]);
  library.ticks.again(many);
  assert.equal(library.resets, 2);
});

test("volumes too long for a number are compared to the last digit", () => {
  const exact = (volume: string): Bar => bar(1, { open: "1", high: "1", low: "1", close: "1", volume });
  const bars = new Bars();
  bars.put(exact("1000000000000000000.5"));
  assert.equal(bars.put(exact("1000000000000000000.1")), "none");
  assert.equal(bars.put(exact("1000000000000000000.6")), "replaced");
});

test("messages and types that are not known change nothing", () => {
  const library = new Library([made(1, 1)]);
  library.ticks.take({ type: "heartbeat", feed: "live" });
  library.ticks.take({ type: "invented", kline: native(made(0, 7)), more: true });
  library.ticks.take({ type: "snapshot", recovered: true, klines: [native(made(0, 7))] });
  assert.deepEqual(library.has(), [[1, 1]]);
  assert.equal(library.resets, 0);
});

test("whatever comes in whatever order, the library ends with what the service has", () => {
  for (let seed = 1; seed <= 200; seed++) {
    const random = seeded(seed);
    const service = new Map<number, Bar>();
    const all = (): Bar[] => [...service.values()].sort((a, b) => a.time - b.time);
    for (let time = 0; time < random(5); time++) service.set(time, made(time, 1));
    const library = new Library(all());
    let resets = 0;
    let given: Bar[] | undefined;
    for (let turn = 0; turn < 60; turn++) {
      const time = Math.max(0, service.size - random(4)) + random(2);
      service.set(time, made(time, (service.get(time)?.volume ?? 0) + 1));
      library.ticks.take(told(random(2) ? "kline" : "revision", service.get(time) as Bar));
      if (given === undefined && library.resets > resets) given = all();
      if (given !== undefined && random(3) === 0) {
        resets = library.resets;
        library.have(given);
        library.ticks.again(given);
        given = undefined;
      }
    }
    while (library.resets > resets) {
      resets = library.resets;
      library.have(all());
      library.ticks.again(all());
    }
    assert.deepEqual(library.bars.all, all(), `seed ${seed}`);
  }
});

test("bars ascend, each time once, whatever is put", () => {
  const random = seeded(7);
  const bars = new Bars();
  const newest = new Map<number, number>();
  for (let turn = 0; turn < 2_000; turn++) {
    const one = made(random(200), 1 + random(50));
    bars.put(one);
    newest.set(one.time, Math.max(newest.get(one.time) ?? 0, one.volume));
  }
  assert.deepEqual(bars.all.map((one) => [one.time, one.volume]), [...newest].sort(([a], [b]) => a - b));
  bars.prepend([made(-2, 1), made(-1, 1), made(0, 99)]);
  assert.deepEqual(bars.all.slice(0, 2).map((one) => one.time), [-2, -1]);
  assert.equal(new Set(bars.all.map((one) => one.time)).size, bars.all.length);
});
