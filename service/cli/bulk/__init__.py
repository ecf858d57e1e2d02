"""`fovea index add`, `export` and `import`: many items in and out of a collection."""
