"""The vocabulary that every layer shares. Standard library and numpy only."""
