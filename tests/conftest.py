"""What all tests share."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # of a shell's background job; the programs under test inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)
