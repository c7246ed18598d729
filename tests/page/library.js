// TradingView's side of the Datafeed API, as strict as its documentation: what breaks a rule is in `broken`.
async (symbol) => {
    const { Datafeed } = await import("/datafeed.js");
    const feed = new Datafeed("/", (guid, state) => (library.states[guid] = state));
    const call = (method, ...rest) => {
        let late = false;
        const answer = new Promise((resolve, reject) => {
            const checked = (settle) => (...values) => {
                if (!late) library.broken.push(`${method} called back at once`);
                settle(values);
            };
            feed[method](...rest, checked(resolve), checked(reject));
        });
        late = true;
        return answer;
    };
    const library = {
        broken: [], series: {}, states: {}, resets: 0, feed,
        async ready() {
            const configuration = await new Promise((resolve) => feed.onReady(resolve));
            const seconds = await new Promise((resolve) => feed.getServerTime(resolve));
            const found = await new Promise((resolve) => feed.searchSymbols(symbol.slice(0, 3).toLowerCase(), "", "", resolve));
            const unknown = await call("resolveSymbol", "NOBODY").catch(([reason]) => reason);
            const [info] = await call("resolveSymbol", symbol);
            library.info = info;
            return { configuration, seconds, found, unknown, info };
        },
        async load(guid, resolution, count) {
            const to = Math.ceil(Date.now() / 1000) + 60;
            const bars = await library.page(resolution, to, count, true);
            library.series[guid] = { resolution, bars };
            return bars.length;
        },
        async page(resolution, to, countBack, firstDataRequest) {
            const period = { from: to - 60, to, countBack, firstDataRequest };
            const [bars, { noData }] = await call("getBars", library.info, resolution, period);
            if (noData !== (bars.length === 0)) library.broken.push(`noData ${noData} with ${bars.length} bars`);
            bars.forEach((bar, at) => {
                if (at && bar.time <= bars[at - 1].time) library.broken.push("times are not strictly ascending");
                if (bar.time >= to * 1000) library.broken.push("a bar at or after `to`");
                for (const part of ["time", "open", "high", "low", "close", "volume"])
                    if (typeof bar[part] !== "number") library.broken.push(`${part} is not a number`);
            });
            return bars;
        },
        // By itself, as `resetData()` makes the library do.
        async again(guid) {
            const one = library.series[guid];
            one.bars = await library.page(one.resolution, Math.ceil(Date.now() / 1000) + 60, 300, true);
        },
        // As the first request of a browser whose clock is slow.
        async first(resolution, to, countBack) {
            const period = { from: to - 60, to, countBack, firstDataRequest: true };
            return (await call("getBars", library.info, resolution, period))[0];
        },
        subscribe(guid, count) {
            const one = library.series[guid];
            const tick = (bar) => {
                const last = one.bars.at(-1)?.time ?? 0;
                if (bar.time < last) library.broken.push("putToCacheNewBar: time violation");
                if (bar.time === last) one.bars.pop();
                one.bars.push(bar);
            };
            const reset = async () => {
                library.resets++;
                await library.load(guid, one.resolution, count);
                Object.assign(one, library.series[guid]);
                library.series[guid] = one;
            };
            feed.subscribeBars(library.info, one.resolution, tick, guid, reset);
        },
        texts: (guid) => library.series[guid].bars.map((bar) => [bar.time, ...Object.values(bar.text)]),
    };
    window.library = library;
}
