"""`python -m bassl_fast.cli`, for torchrun and srun."""

import sys

from .app import main

sys.exit(main())
