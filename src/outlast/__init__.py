"""outlast keeps a Python service working while its parts fail, and proves that it does."""
