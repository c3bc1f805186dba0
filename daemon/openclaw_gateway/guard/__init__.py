"""A gateway that somebody else wrote, behind our claim."""
