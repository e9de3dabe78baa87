"""The rows of the result table by name.

    from atss_nb import recipes
    recipe = recipes.find_recipe("atss-r50-le90-1x-dota")
    recipes.run_recipe(recipe, "path/to/data", "runs/row")
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
