"""Pickle bytes to inert symbols and back; what torch's own globals mean."""
