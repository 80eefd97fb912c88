"""Which steps ask their engine for a GPU: those that run a model, and no others."""

import argparse

import apache_beam as beam
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions


class ModelOptions(PipelineOptions):
    """What the launcher tells the transforms that run a model. It decides where they run, never what comes out."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--model_accelerator", help="as --accelerator of mmc4-build")


def with_accelerator(transform: beam.PTransform, options: PipelineOptions) -> beam.PTransform:
    """The same transform, on machines with the GPU that was asked for.

    Asked for a whole pipeline (`--resource_hint accelerator=...`) every step would have one.
    """
    wanted = options.view_as(ModelOptions).model_accelerator
    return transform.with_resource_hints(accelerator=wanted) if wanted else transform


def contradiction(options: PipelineOptions) -> str | None:
    """Why an engine cannot give GPUs to some of the steps, or None. Dataflow would find out after the start."""
    if not options.view_as(ModelOptions).model_accelerator:
        return None
    cloud = options.view_as(GoogleCloudOptions)
    if cloud.flexrs_goal:
        return "FlexRS has no GPUs: run the stage `scores` without --flexrs_goal, or without --accelerator"
    if any("worker_accelerator" in option for option in cloud.dataflow_service_options or ()):
        return "--accelerator is for the steps with a model, worker_accelerator for all of them: give one of them"
    return None
