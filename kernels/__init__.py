"""What is computed: operators, schedules, models, code generation, judging results."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
"""Builds fill the processors by themselves; threads of NumPy's would only wait for one another there."""
