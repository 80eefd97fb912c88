"""Paths as every machine of an engine understands them: workers do not start in the folder of the command."""

import argparse
import os

from mmc4_builder import storage

READ = ("crawl_root", "c4", "image_store", "decontaminate", "ad_list", "nsfw", "faces", "face_detector")
WRITTEN = ("output", "url_list")


def make_absolute(args: argparse.Namespace) -> None:
    """Replace relative local paths among the flags that workers follow. Words such as `tiny`, and URLs, stay."""
    for flag in WRITTEN:
        if value := getattr(args, flag):
            setattr(args, flag, absolute(value))
    for flag in READ:
        if (value := getattr(args, flag)) and os.path.exists(value):
            setattr(args, flag, absolute(value))
    args.input = args.input and [absolute(pattern) for pattern in args.input]
    model, colon, weights = (args.clip or "").partition(":")
    if os.path.exists(weights):
        args.clip = f"{model}{colon}{absolute(weights)}"


def absolute(path: str) -> str:
    """The same place, named from the root; objects of a store are so named already."""
    return os.path.abspath(path) if storage.is_local(path) else path
