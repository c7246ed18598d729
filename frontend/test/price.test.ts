import assert from "node:assert/strict";
import { test } from "node:test";
import { axis, brief, change, compact, compared, fixed, magnitude, marks, moved, percent, shown } from "../src/price";
import { seeded } from "./random";

test("tiny prices show how many zeros there are, and every digit", () => {
  assert.equal(shown("0.000000001234"), "0.0₈1234");
  assert.equal(shown("0.00000123"), "0.0₅123");
  assert.equal(shown("0.0000102030"), "0.0₄102030");
  assert.equal(shown("-0.00001"), "-0.0₄1");
  assert.equal(shown("0.000000000000123456789012345"), "0.0₁₂123456789012345");
  for (const plain of ["0", "0.0", "1", "0.001", "0.00012", "12.00001", "100000.00000001"]) assert.equal(shown(plain), plain);
});

test("what is folded can be unfolded", () => {
  const random = seeded(1);
  for (let turn = 0; turn < 500; turn++) {
    const zeros = 4 + random(30);
    const digits = `${1 + random(9)}${random(1_000_000_000)}`;
    const [, count = "", rest] = /^0\.0([₀-₉]+)(\d+)$/.exec(shown(`0.${"0".repeat(zeros)}${digits}`)) ?? [];
    assert.equal(Number([...count].map((digit) => "₀₁₂₃₄₅₆₇₈₉".indexOf(digit)).join("")), zeros);
    assert.equal(rest, digits);
  }
});

test("numbers become text without an exponent, and back the same number", () => {
  assert.equal(fixed(1.5e-7), "0.00000015");
  assert.equal(fixed(-2e-10), "-0.0000000002");
  assert.equal(fixed(1e21), "1000000000000000000000");
  const random = seeded(2);
  for (let turn = 0; turn < 500; turn++) {
    const value = random(1_000_000_000) * 10 ** (random(60) - 40);
    assert.equal(Number(fixed(value)), value);
    assert.match(fixed(value), /^\d+(\.\d+)?$/);
  }
});

test("moving the point there and back gives the same text", () => {
  assert.equal(moved("0.00000123", 6), "1.23");
  assert.equal(moved("123456", -8), "0.00123456");
  assert.equal(moved("-1.5", 1), "-15");
  const random = seeded(3);
  for (let turn = 0; turn < 500; turn++) {
    const text = moved(String(1 + random(1_000_000)), -random(20));
    const places = random(40) - 20;
    assert.equal(moved(moved(text, places), -places), text);
  }
});

test("the leading digit", () => {
  const expected = { "1.5": 0, "0.00000123": -6, "1000": 3, "0": 0, "0.1": -1, "-25": 1, "007": 0 };
  for (const [text, power] of Object.entries(expected)) assert.equal(magnitude(text), power, text);
});

test("an axis has as many decimals as it is told", () => {
  assert.equal(axis(2.5, 4), "2.5000");
  assert.equal(axis(0.0000012345, 10), "0.0₅12345");
  assert.equal(axis(0, 8), "0");
  assert.equal(axis(1e-18, 18), "0.0₁₇1");
});

test("an axis shows the smallest and the largest prices, never an exponent", () => {
  assert.equal(axis(1.2345, 34, 30), "0.0₂₉12345");
  assert.equal(axis(1.5, 2, -23), "150000000Q");
  assert.equal(axis(1.5e23, 2), "150000000Q");
  assert.equal(axis(1.234, 2, -9), "1.234B");
  assert.deepEqual(marks([-1, 1, 1.25, 1.5], 14, 9), ["", "0.0₈100", "0.0₈125", "0.0₈150"]);
  assert.deepEqual(marks([10, 20, 30], 4), ["10", "20", "30"]);
  assert.deepEqual(marks([1e15, 2e15], 2), ["1Q", "2Q"]);
});

test("long prices are cut where there is little room", () => {
  const expected = {
    "0.00000123": "0.0₅123", "1234.5678": "1234.5678", "123456.123456789012": "123456.12", "0.123456789012345678": "0.12345678",
    "0.000000000000123456789012345": "0.0₁₂12345678", "123456789012345.5": "123.4T", "12345678": "12345678",
  };
  for (const [text, cut] of Object.entries(expected)) {
    assert.equal(brief(text), cut, text);
    assert.ok(brief(text).length <= 14);
  }
});

test("texts are compared exactly", () => {
  assert.ok(compared("1000000000000000000.5", "1000000000000000000.1") > 0);
  assert.ok(compared("9", "10") < 0);
  assert.ok(compared("0.1", "0.09") > 0);
  assert.ok(compared("1", "1.000000000000000000000001") < 0);
  for (const [a, b] of [["0", "0.0"], ["01.50", "1.5"], ["7", "7"]] as const) assert.equal(compared(a, b), 0);
  const random = seeded(4);
  for (let turn = 0; turn < 500; turn++) {
    const [a, b] = [random(100_000), random(100_000)];
    const places = random(12);
    const sign = compared(moved(String(a), -places), moved(String(b), -places));
    assert.equal(Math.sign(sign), Math.sign(a - b));
  }
});

test("columns show orders of magnitude, cut and never rounded up", () => {
  const expected = {
    "0": "0", "1": "1", "999.99": "999.9", "1000": "1K", "1234.5": "1.234K", "999999": "999.9K", "12345678": "12.34M",
    "1234567890123": "1.234T", "1500000000000000": "1.5Q", "4200000000000000000": "4200Q", "0.00000123": "0.0₅123",
    "0.123456": "0.1234",
  };
  for (const [text, short] of Object.entries(expected)) assert.equal(compact(text), short, text);
});

test("changes have a sign", () => {
  assert.equal(percent("12.3456"), "+12.35%");
  assert.equal(percent("-0.5"), "-0.50%");
  assert.equal(percent("0"), "0.00%");
  assert.equal(percent("-0.0001"), "0.00%");
  assert.equal(percent("12345.6"), "+12346%");
  assert.equal(percent("1234567891199999900000000"), "+1234567891Q%");
  assert.equal(percent("1000000"), "+1M%");
  assert.equal(percent(null), "–");
  assert.equal(percent(change("0.00000100", "0.00000125")), "+25.00%");
});
