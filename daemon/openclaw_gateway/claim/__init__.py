"""Who owns this port? A claim, what it holds, and what is done about whoever is in the way."""
