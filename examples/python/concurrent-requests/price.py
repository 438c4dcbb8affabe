"""The price of the day, computed: work for a core, and not for the loop. In a file of its own, since each process of the pool
imports it, and must not import the application."""

import hashlib
import multiprocessing
import os
import threading

ROUNDS = 4_000


def price(product: int, cents: int) -> int:
    digest = str(product).encode()
    for _ in range(ROUNDS):
        digest = hashlib.sha256(digest).digest()
    discount = digest[0] % 21
    return cents - cents * discount // 100


def end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    threading.Thread(target=lambda: (parent.join(), os._exit(0)), daemon=True).start()
