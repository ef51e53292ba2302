"""Offline tools: key-frames, folders and videos to shards, and the shard format itself.

A shard is a POSIX tar of JPEG bytes, one per film, beside an index of where every key-frame is.
Needs numpy, tqdm, Pillow and webdataset (PyAV and PySceneDetect for videos); knows neither DALI nor torch.
Read `shards.format` first; `packing.pack.pack` writes shards, `shards.index.ShardIndex` opens them.
"""
