"""What can be packed: `detect.open_layout` finds the layout of a folder, zip or address, and returns a `source.Source`.

Read `source` first: it says what a source is. Every other module is one kind of source, or part of one.
`synthetic` draws films to try everything with.
Imports video, shards, annotations and plug-ins; knows nothing of packing.
"""
