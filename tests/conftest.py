"Property tests look for new examples at a desk; where CI is set, they repeat the same ones, so that a run can be repeated."

import os

from hypothesis import settings

settings.register_profile("desk", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.load_profile("ci" if os.environ.get("CI") else "desk")
