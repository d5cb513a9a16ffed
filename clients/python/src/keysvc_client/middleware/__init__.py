"""What all middleware has in common, whatever the framework: what to ask, and what an answer means."""
