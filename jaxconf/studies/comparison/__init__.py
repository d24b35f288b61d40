"""A base model beside the models that were trained on from it."""
