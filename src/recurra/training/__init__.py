"""Recipes in, model files out."""

from recurra.training.fit import train
from recurra.training.recipe import Fit, Recipe

__all__ = ["Fit", "Recipe", "train"]
