"""Joining or starting Ray, and what becomes of its head."""
