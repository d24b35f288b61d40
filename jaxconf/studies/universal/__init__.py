"""Which neurons of a model recur in models that were trained apart from it."""
