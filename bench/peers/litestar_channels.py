"""A fan-out of given frames by Litestar's own channels plugin, as its manual has it; it obeys like `ws_server.mjs`.

Memory backend, the plugin's route handlers, uvicorn on uvloop with its choice of a WebSocket implementation.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import Any

import uvicorn
from litestar import Litestar
from litestar.channels import ChannelsPlugin
from litestar.channels.backends.memory import MemoryChannelsBackend
from litestar.channels.subscriber import Subscriber

CHANNEL = "updates"
# Of one subscriber, in updates.
AHEAD = 16


class Counted(Subscriber):
    """The plugin's subscriber; the one that subscribed last tells how far behind all are."""

    last: Counted | None = None

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        Counted.last = self


class Fanout:
    """Obeys the lines of the input."""

    def __init__(self, plugin: ChannelsPlugin, frames: list[str]) -> None:
        self.plugin, self.frames = plugin, frames

    async def obey(self, line: str) -> int:
        """Carry out one line; how many updates were sent."""
        what, *given = line.split()
        if what == "once":
            return await self.paced(len(self.frames), 0.05)
        if what == "paced":
            return await self.paced(int(given[0]), float(given[1]) / 1000)
        return await self.unpaced(float(given[0]) / 1000)

    async def paced(self, count: int, period: float) -> int:
        """So many updates, one each so often."""
        began = time.monotonic()
        for update in range(count):
            await asyncio.sleep(began + update * period - time.monotonic())
            self.plugin.publish(self.frames[update % len(self.frames)], CHANNEL)
        return count

    async def unpaced(self, seconds: float) -> int:
        """Updates as fast as the clients take them."""
        until, update = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            if Counted.last is None or Counted.last.qsize < AHEAD:
                self.plugin.publish(self.frames[update % len(self.frames)], CHANNEL)
                update += 1
            await asyncio.sleep(0)
        return update


class Server(uvicorn.Server):
    """Prints its port, obeys the input, leaves at its end."""

    fanout: Fanout

    async def startup(self, sockets: Any = None) -> None:
        """Tell the port, and listen to the input."""
        await super().startup(sockets)
        loop = asyncio.get_running_loop()
        port = self.servers[0].sockets[0].getsockname()[1]
        sys.stdout.write(f"port {port}\n")
        sys.stdout.flush()
        threading.Thread(target=self.listen, args=(loop,), daemon=True).start()

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beside the event loop, so that waiting costs it nothing."""
        for line in sys.stdin:
            updates = asyncio.run_coroutine_threadsafe(self.fanout.obey(line), loop).result()
            sys.stdout.write(f"done {updates}\n")
            sys.stdout.flush()
        self.should_exit = self.force_exit = True


def main() -> None:
    """Serve the lines of the file that is named."""
    plugin = ChannelsPlugin(
        MemoryChannelsBackend(), channels=[CHANNEL], create_ws_route_handlers=True, subscriber_class=Counted
    )
    app = Litestar(plugins=[plugin])
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, loop="uvloop", log_level="warning", access_log=False, lifespan="on"
    )
    server = Server(config)
    server.fanout = Fanout(plugin, Path(sys.argv[1]).read_text().splitlines())
    server.run()


if __name__ == "__main__":
    main()
