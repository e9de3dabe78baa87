"Pictures that answer when they are dragged: what only predicts needs none of them, nor anywidget."

from ..core.options import needs

needs("anywidget")
