"""What can be packed: `detect.open_layout` finds the layout of a folder, zip or address, and returns a `source.Source`.

`synthetic` draws films to try everything with.
"""
