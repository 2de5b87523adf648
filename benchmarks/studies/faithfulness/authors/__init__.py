"""Adapters to the code of the authors of the methods in ../rankings, one script a method, and what is compared."""
