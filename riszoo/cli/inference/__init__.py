"""The verbs that apply a trained model to images of your own."""
