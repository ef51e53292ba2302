"""Where a run happens: hardware, processes, engines, the folder it writes to.

Read `hardware` first (device, precision), then `distributed` (sums over processes) and `run_folder` (local or remote).
`engines` works on many films, in this process or on a Ray cluster.
Imports `config` and `shard_tools`; knows no network.
"""
