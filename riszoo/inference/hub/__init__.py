"""Trained models as repositories of the Hugging Face Hub: folders with weights, configuration and model card."""
