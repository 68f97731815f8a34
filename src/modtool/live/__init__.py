"""The live side: the only room that imports torch and runs the user's model."""
