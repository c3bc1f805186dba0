"""What is made of what was seen: a verdict, findings, advice. Pure."""
