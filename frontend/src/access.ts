/**
 * The API key that a service with `AUTH=all` asks for: kept as long as the tab, sent in a header, never in an address.
 *
 * A WebSocket of a browser carries no header of ours, so each connection takes a ticket first: good for one connection
 * within thirty seconds (`POST /api/v1/tickets`).
 */

const KEY = "klines.key";
const TICKET_MS = 10_000;
const REFUSED = [401, 403];

type Refused = (known: boolean) => void;

let refused: Refused | undefined;
let kept: string | null = null;

/** Call `told` whenever the service wants a key; with true when the one that was given is not good. */
export function onRefused(told: Refused): void {
  refused = told;
}

/** Use this key from now on, in this tab. */
export function useKey(key: string): void {
  kept = key;
  try {
    sessionStorage.setItem(KEY, key);
  } catch {
    return;
  }
}

/** As `fetch`, with the key if there is one. */
export async function ask(address: URL, request: RequestInit = {}): Promise<Response> {
  const key = known();
  const headers = key === null ? {} : { Authorization: `Bearer ${key}` };
  const answer = await fetch(address, { ...request, headers });
  if (REFUSED.includes(answer.status)) {
    // A key that is not good is not tried again: each time would count against this address.
    if (key !== null && key === kept) forget();
    refused?.(key !== null);
  }
  return answer;
}

/** The address of a WebSocket for one connection: with a ticket where there is a key. Throws when there is none. */
export async function admitted(base: URL, address: URL): Promise<URL> {
  if (known() === null) return address;
  const wanted = new URL("api/v1/tickets", base);
  const answer = await ask(wanted, { method: "POST", signal: AbortSignal.timeout(TICKET_MS) });
  if (!answer.ok) throw new Error(`no ticket: HTTP ${answer.status}`);
  const { ticket } = (await answer.json()) as { ticket: string };
  const once = new URL(address);
  once.searchParams.set("ticket", ticket);
  return once;
}

function forget(): void {
  kept = null;
  try {
    sessionStorage.removeItem(KEY);
  } catch {
    return;
  }
}

function known(): string | null {
  try {
    kept ??= sessionStorage.getItem(KEY);
  } catch {
    return kept;
  }
  return kept;
}
