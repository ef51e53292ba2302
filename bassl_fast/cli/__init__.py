"""The command line, one verb per job. `main` is the console command `bassl-fast`."""

from .app import main

__all__ = ["main"]
