"""What a file says beside its pixels: its colour profile, EXIF and XMP, taken out and put in."""

from cyclegan.metadata.containers import Metadata, embed_png, embed_tiff, for_pillow, metadata_of

__all__ = ["Metadata", "embed_png", "embed_tiff", "for_pillow", "metadata_of"]
