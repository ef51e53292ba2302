"""The command line: one verb a job. Door: `main`, the console command `bassl-fast`."""

from .app import main

__all__ = ["main"]
