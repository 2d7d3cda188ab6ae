"""``python -m adaptlab`` is ``adaptlab``."""

import sys

from adaptlab.cli.main import main

sys.exit(main())
