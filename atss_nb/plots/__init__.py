"Static pictures, and the report that is made of them: what only predicts needs none of it, nor matplotlib."

from ..core.options import needs

needs("matplotlib")
