"""The command line, one verb per job. `main` is the console command `bassl-fast`.

Read `verbs` first: the table of verbs and where each is. `app` parses, calls, and turns errors into one line.
Imports every other room, each only when its verb is called.
"""

from .app import main

__all__ = ["main"]
