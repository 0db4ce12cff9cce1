"""riszoo: a zoo of referring image segmentation models, trained and measured alike."""

__version__ = "0.1.0"
