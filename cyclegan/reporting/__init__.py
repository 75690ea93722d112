"""What a run shows while it goes on: numbers, grids, trackers, progress."""
