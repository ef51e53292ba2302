"""Files, local and remote: written whole, downloaded, cached, and read as untrusted data.

Read `atomic` first (how files are written), then `remote` (addresses, retries) and `cache` (remote shards).
Imports counters, progress and errors only.
"""
