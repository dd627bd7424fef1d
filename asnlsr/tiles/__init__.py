"""Pairs of sharp and blurred tiles, and the role of each."""
