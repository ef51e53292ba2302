"""Offline tools: key-frames, folders and videos -> shards, and the shard format itself.

A shard is a POSIX tar of JPEG bytes, one per film, beside an index that says where every key-frame starts.
Needs numpy, tqdm and Pillow (PyAV and PySceneDetect for videos); nothing in here knows of DALI or torch.
Door: `pack.pack` writes shards, `format.ShardIndex` opens them, `draw.draw_films` makes films to try with.
"""
