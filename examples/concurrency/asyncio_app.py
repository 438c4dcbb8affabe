"""One event loop: `GET /healthz` does nothing, `GET /price` computes, on the loop (`inline`), in a thread (`thread`), which has
to hold the GIL like every other, or in another process (`process`).

    python3 asyncio_app.py PORT inline|thread|process MILLISECONDS
"""

import asyncio
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor


def compute(count):
    hash = 1
    for n in range(count):
        hash = ((hash ^ n) * 0x9E3779B1 & 0xFFFFFFFF) ^ (hash >> 15)
    return hash


def timed(count):
    begun = time.perf_counter()
    compute(count)
    return time.perf_counter() - begun


def end_with_parent():
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(0)), daemon=True).start()


async def main(port, way, milliseconds):
    some = 20_000
    # The best of some: in the others, another process had the core.
    count = round(some * milliseconds / 1e3 / min(timed(some) for _ in range(10)))
    processes = ProcessPoolExecutor(2, initializer=end_with_parent)
    executor = {"inline": None, "thread": ThreadPoolExecutor(2), "process": processes}[way]
    loop = asyncio.get_running_loop()
    if way == "process":
        # Processes start when they are first needed, which is not to be measured.
        await asyncio.gather(*(loop.run_in_executor(executor, compute, some) for _ in range(2)))

    async def answer(reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                body = b"alive"
                if head.startswith(b"GET /price "):
                    if executor is None:
                        price = compute(count)
                    else:
                        price = await loop.run_in_executor(executor, compute, count)
                    body = str(price).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", port)
    print(f"listening on http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3])))
