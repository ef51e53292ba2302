"""Write shards from a source (`pack`), check every byte of them (`verify`), pack broken ones again (`repair`).

    source  ->  pack (a set)  ->  workers (many shards)  ->  pack_shard (one)  ->  writer (its tar and index)
Read `pack` first. Imports sources; no source imports this room.
"""
