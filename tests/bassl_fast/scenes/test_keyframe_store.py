"""Key-frames on disk: the same bytes, as a sequence, for as long as somebody holds them."""

from __future__ import annotations

import gc
import pickle

from bassl_fast.scenes.keyframe_store import KeyframeStore


def test_key_frames_come_back():
    store = KeyframeStore()
    shots = [(b"a", b"", b"ccc"), (), (b"dd",)]
    stored = [store.add(shot) for shot in shots]
    del store
    gc.collect()
    assert stored == shots
    assert [len(kept) for kept in stored] == [3, 0, 1]
    assert (stored[0][-1], stored[0][1:], stored[2][0]) == (b"ccc", (b"", b"ccc"), b"dd")
    assert pickle.loads(pickle.dumps(stored)) == shots
    assert hash(stored[0]) == hash(shots[0])
    assert stored[0] != stored[2]
