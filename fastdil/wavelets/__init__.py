"""The a trous wavelet transform (`transform`), and what of it is noise (`denoising`)."""

from fastdil.wavelets.denoising import atrous_noise, atrous_threshold
from fastdil.wavelets.transform import atrous_transform, inverse_atrous_transform

__all__ = ["atrous_noise", "atrous_threshold", "atrous_transform", "inverse_atrous_transform"]
