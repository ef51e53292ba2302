"""`bassl-fast cache`: show, check or empty the cache of what was fetched from addresses."""

from __future__ import annotations

from typing import Literal

from tqdm import tqdm

from shard_tools.storage.cache import Cache
from shard_tools.storage.upkeep import KINDS, cached_files, clear, drop_altered


def cache(do: Literal["info", "verify", "clear"]) -> None:
    """Show, check or empty the cache of what was fetched from addresses, which $BASSL_FAST_CACHE names.

    Args:
        do: "info" prints the folder, the limit, and files and bytes by kind; "verify" compares every file with its
            checksum and deletes those that differ, which are then fetched again when they are needed; "clear" deletes
            what no process has open.

    Raises:
        ShardError: the folder cannot be read or written.
    """
    found = Cache()
    if do == "info":
        _print(found)
    elif do == "verify":
        with tqdm(desc="verify", unit="B", unit_scale=True, disable=None) as bar:
            dropped = drop_altered(found, bar.update)
        for path in dropped:
            print(f"{path}: altered, so it was deleted; it is fetched again when it is needed")
        if not dropped:
            print(f"{found.folder}: whole")
    else:
        clear(found)
        _print(found)


def _print(found: Cache) -> None:
    print(f"folder      {found.folder}")
    print(f"limit       {found.limit / 2**30:g} GiB of shards")
    files = list(cached_files(found))
    for kind in KINDS:
        sizes = [file.size for file in files if file.kind == kind]
        print(f"{kind:10s}  {len(sizes)} file{'s' * (len(sizes) != 1)}, {sum(sizes)} bytes")
