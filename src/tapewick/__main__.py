"""``python -m tapewick``."""

import sys

from tapewick.cli import main

sys.exit(main())
