"""How people speak: the commands of ``keysvc``."""
