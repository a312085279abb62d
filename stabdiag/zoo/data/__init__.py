"""Data that is generated: each batch a function of the seed and of its number alone."""
