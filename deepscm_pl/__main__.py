"""``python -m deepscm_pl``: the same program as ``deepscm``."""

import sys

from deepscm_pl.cli import main

if __name__ == "__main__":
    sys.exit(main())
