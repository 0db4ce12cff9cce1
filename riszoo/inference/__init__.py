"""Inference: a trained model applied to any image, and drawings of its predictions."""
