"""Slices of the vectors that are searched: here, or in Ray actors."""
