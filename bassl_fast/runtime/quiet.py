"""Keep the libraries' advice to developers off the user's terminal."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """Only errors of Lightning are shown. Call it after Lightning's import, which sets its own level."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
        warnings.filterwarnings("ignore", module=name)
    warnings.filterwarnings("ignore", module="jsonargparse")
