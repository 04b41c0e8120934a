"""``python -m rankdiag`` is the command ``rankdiag``."""

import sys

from rankdiag.cli import main

sys.exit(main())
