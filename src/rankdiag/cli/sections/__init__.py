"""Sections of ``rankdiag demo``: every module in this folder is one, found by its presence.

A section module has ``ORDER`` (int, its place), ``TITLE`` and ``INTRO`` (strings), and ``run(folder)``, which
works offline, writes its files below `folder` and returns a tuple of results.
"""
