"""Pure rules of the physical log: encoding, resolving, classifying damage."""
