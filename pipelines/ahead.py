"""Make something in a thread, one ahead of its use.

thread   make 1 | make 2 | make 3 | ...
caller            use 1  | use 2  | ...
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, Generic, TypeVar

Made = TypeVar("Made")


class Ahead(Generic[Made]):
    """One thing in the making, and the thread that makes it; made in order, one at a time.

    Args:
        make: called with the position of a thing, in the thread.
    """

    def __init__(self, make: Callable[..., Made]) -> None:
        self._make = make
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._next: tuple[tuple, Future[Made]] | None = None

    def take(self, position: tuple, following: tuple) -> Made:
        """The thing at `position`, when it is made; then the one at `following` is begun.

        Raises:
            Whatever making it raised. What comes after is not begun then.
        """
        if self._next is None or self._next[0] != position:  # the first, or a jump to another position
            self._next = position, self._executor.submit(self._make, *position)
        made = self._next[1]
        try:
            found = made.result()
        finally:
            if made.done():  # not interrupted
                self._next = None
            del made  # an error refers to this frame, and the future to the error
        self._next = following, self._executor.submit(self._make, *following)
        return found

    def settle(self) -> None:
        """Wait until nothing is in the making; what is made is kept for `take`."""
        if self._next is not None:
            wait([self._next[1]])

    def end(self) -> None:
        """End the thread, after what it is making."""
        self._next = None
        mine = threading.current_thread() in self._executor._threads
        self._executor.shutdown(wait=not mine, cancel_futures=True)


def end(ahead: Ahead[Any]) -> None:
    """For `weakref.finalize`."""
    ahead.end()
