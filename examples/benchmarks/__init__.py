"""What Manifold Mixup costs a training step, beside no mixing and beside the alternatives."""
