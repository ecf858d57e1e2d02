"""What training's pictures are cut to, where that isn't what is served."""

from dataclasses import replace

from service.preprocess import Preprocessing


def training_size(spec: Preprocessing, size: int) -> Preprocessing:
    """`spec` with a crop of `size` pixels a side; 0 leaves it as it is.

    Networks that are served larger than they were trained see objects at the size that random crops had
    shown them (Touvron et al. 2019, arXiv:1906.06423).
    """
    if not size:
        return spec
    return replace(
        spec, resize_short_side=max(size, spec.resize_short_side), crop_height=size, crop_width=size
    )
