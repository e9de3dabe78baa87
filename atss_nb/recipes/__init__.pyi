from .recipes import find_recipe as find_recipe
from .recipes import override as override
from .recipes import recipe_names as recipe_names
from .recipes import run_recipe as run_recipe
from .recipes import score_recipe as score_recipe
from .table import Recipe as Recipe
