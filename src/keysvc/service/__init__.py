"""What we do: one file for each role. What it needs of the outside is in ``ports``."""
