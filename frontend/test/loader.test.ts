import assert from "node:assert/strict";
import { test } from "node:test";
import type { Bars } from "../src/bars";
import type { Datafeed, PeriodParams, SymbolInfo } from "../src/datafeed";
import { Loader, type View } from "../src/loader";
import { bar, type Bar } from "../src/udf";

const made = (time: number, volume = 1): Bar =>
  bar(time * 1000, { open: "1", high: "1", low: "1", close: "1", volume: String(volume) });
const some = (from: number, count: number, volume = 1): Bar[] =>
  Array.from({ length: count }, (_, at) => made(from + at, volume));

interface Asked {
  readonly period: PeriodParams;
  answer(bars: readonly Bar[]): void;
}

/** A datafeed that answers when the test says so, and a chart that looks where the test says. */
class Scene implements View {
  readonly asked: Asked[] = [];
  live = true;
  seenFrom: number | undefined;
  drawn: readonly Bar[] = [];
  tick: (bar: Bar) => void = () => assert.fail("nobody subscribed");
  reset: () => void = () => assert.fail("nobody subscribed");
  readonly loader: Loader;

  constructor() {
    const feed = {
      getBars: (_: SymbolInfo, __: string, period: PeriodParams, onResult: (bars: readonly Bar[], meta: object) => void) =>
        this.asked.push({ period, answer: (bars) => onResult(bars, { noData: bars.length === 0 }) }),
      subscribeBars: (_: SymbolInfo, __: string, tick: (bar: Bar) => void, ___: string, reset: () => void) =>
        Object.assign(this, { tick, reset }),
      unsubscribeBars: () => undefined,
    };
    this.loader = new Loader(feed as unknown as Datafeed, {} as SymbolInfo, "1S", this);
  }

  draw(bars: Bars): void {
    this.drawn = [...bars.all];
  }

  update(): void {
    this.drawn = [...this.loader.bars.all];
  }

  next(): Asked {
    return this.asked.shift() ?? assert.fail("nothing was asked");
  }

  times(): [number, number, number] {
    return [this.drawn.length, (this.drawn[0]?.time ?? 0) / 1000, (this.drawn.at(-1)?.time ?? 0) / 1000];
  }
}

test("of two loads under way the newer one counts, whichever answers first", () => {
  const scene = new Scene();
  scene.next().answer(some(0, 3));
  scene.reset();
  scene.reset();
  const [older, newer] = [scene.next(), scene.next()];
  newer.answer(some(0, 3, 3));
  scene.tick(made(3, 1));
  older.answer(some(0, 3, 2));
  assert.deepEqual(scene.drawn.map((one) => one.volume), [3, 3, 3, 1]);
});

test("bars before what a reset brings stay", () => {
  const scene = new Scene();
  scene.next().answer(some(9_000, 1_000));
  for (let at = 8_000; at >= 0; at -= 1_000) {
    scene.loader.older();
    scene.next().answer(some(at, 1_000));
  }
  scene.seenFrom = 0;
  scene.reset();
  const { period, answer } = scene.next();
  assert.equal(period.countBack, 5_000);
  answer(some(5_001, 5_000, 2));
  assert.deepEqual(scene.times(), [10_001, 0, 10_000]);
  assert.equal(scene.drawn[5_000]?.volume, 1);
  assert.equal(scene.drawn[5_001]?.volume, 2);
});

test("bars that what a reset brings does not join are forgotten", () => {
  for (const [first, most] of [[5_000, Infinity], [0, 3]] as const) {
    const scene = new Scene();
    scene.next().answer(some(0, 600));
    scene.reset();
    const { period, answer } = scene.next();
    const brought = some(first, Math.min(most, period.countBack), 2);
    answer(brought);
    assert.deepEqual(scene.drawn, brought);
  }
});

test("live bars do not grow without end, unless somebody looks back", () => {
  const scene = new Scene();
  scene.next().answer(some(0, 50_999));
  scene.live = false;
  for (let time = 50_999; time < 51_100; time++) scene.loader.bars.put(made(time));
  scene.tick(made(51_100));
  assert.equal(scene.drawn.length, 51_101);
  scene.live = true;
  scene.tick(made(51_101));
  assert.deepEqual(scene.times(), [50_000, 1_102, 51_101]);
});
