"""Images of any size in bounded memory: whole, in tiles that agree, or exactly, layer by layer."""
