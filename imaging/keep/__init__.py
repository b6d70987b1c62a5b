"""Keeping what an edit was not asked to change; engine.keep is the whole of it."""
