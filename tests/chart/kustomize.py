"""Kustomize's own engine, as the library that the package pykustomize brings along."""

import ctypes
from importlib.metadata import files

from rendering import documents

_library = None


class BuildFailed(Exception):
    pass


def library():
    global _library
    if _library is None:
        path = next(f for f in files("pykustomize") if f.name == "libpykustomize.so")
        _library = ctypes.CDLL(str(path.locate()))
        _library.pykustomize_last_error.restype = ctypes.c_void_p
    return _library


def build(folder):
    """The objects of a folder with a kustomization."""
    result = ctypes.c_void_p()
    if library().pykustomize_build(str(folder).encode(), b"{}", ctypes.byref(result)) != 0:
        raise BuildFailed(ctypes.string_at(library().pykustomize_last_error()).decode())
    text = ctypes.string_at(result.value).decode()
    library().pykustomize_free(result)
    return documents(text)
