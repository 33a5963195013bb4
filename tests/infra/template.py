"""The template, read and expanded. Needs the packages of lint.txt."""

import copy
import json
import logging
import os
import pathlib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "infra" / "template.yaml"
REGION = "eu-central-1"

# The expansion asks for a region and nothing else of AWS.
os.environ.setdefault("AWS_DEFAULT_REGION", REGION)
logging.disable(logging.WARNING)


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms: `!Ref x` is {"Ref": "x"}, `!Sub x` is {"Fn::Sub": "x"}, `!GetAtt a.b` is {"Fn::GetAtt": ["a", "b"]}."""


def _short_form(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


def read(path=TEMPLATE):
    """The template as it is written, short forms spelt out."""
    return yaml.load(path.read_text(), _Loader)


def expanded(template):
    """What CloudFormation makes of it: the SAM transform with the parameters' defaults.

    Raises samtranslator's InvalidDocumentException where the transform refuses it.
    """
    from samtranslator.translator.transform import transform

    class NoManagedPolicies:
        def load(self):
            return {}

    template = json.loads(json.dumps(copy.deepcopy(template)))
    for resource in template["Resources"].values():
        properties = resource.get("Properties") or {}
        # As `sam package` leaves them.
        if resource["Type"] == "AWS::Serverless::Function":
            properties["CodeUri"] = "s3://some-bucket/key.zip"
        if resource["Type"] == "AWS::Serverless::LayerVersion":
            properties["ContentUri"] = "s3://some-bucket/key.zip"
    template.get("Globals", {}).get("Function", {}).pop("CodeUri", None)
    parameters = {name: str(one["Default"]) for name, one in template.get("Parameters", {}).items() if "Default" in one}
    return json.loads(json.dumps(transform(template, parameters, NoManagedPolicies())))


def of_type(template, kind):
    """Resources of a type, by their names."""
    return {name: one for name, one in template["Resources"].items() if one["Type"] == kind}
