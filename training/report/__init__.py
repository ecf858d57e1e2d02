"""What an evaluation found, as a page with pictures and as a model card."""
