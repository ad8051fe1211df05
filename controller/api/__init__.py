"""Trimmed, frozen structs of the objects that the controller reads, and label selectors."""
