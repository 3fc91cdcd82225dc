"""Recurrent layers and what is around them."""
