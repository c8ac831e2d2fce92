"""What a model does and costs: error rates, parameters, FLOPs and memory."""
