"""Networks: backbones, pooling, the local branch, fusion and the descriptor models made of them."""
