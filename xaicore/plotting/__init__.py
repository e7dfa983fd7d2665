"""How :mod:`xaicore.plots` draws: style and panels, pictures of images and maps, charts of numbers."""
