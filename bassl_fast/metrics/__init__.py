"""Metrics: pure functions from predictions and labels to percent."""
