"""The routes three times: as the template has them, as `cargo lambda watch` has them (Cargo.toml), as the API's document has them."""

import json
import re
import tomllib

from template import ROOT, of_type

METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


def of_document():
    """(method, path) of every operation of docs/openapi.json."""
    paths = json.loads((ROOT / "docs" / "openapi.json").read_text())["paths"]
    return {(method, path) for path, of in paths.items() for method in of if method in METHODS}


def of_cargo():
    """path -> {method, or "any": function} of the table in Cargo.toml."""
    table = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["metadata"]["lambda"]["watch"]["router"]
    routes = {}
    for path, of in table.items():
        if isinstance(of, str):
            routes[path] = {"any": of}
        else:
            routes[path] = {method.lower(): one["function"] for one in of for method in one.get("methods", [one.get("method", "any")])}
    return routes


def of_gateway(template):
    """path -> {method, or "any": function} of the REST API, from the template as it is expanded."""
    [api] = of_type(template, "AWS::ApiGateway::RestApi").values()
    routes = {}
    for path, of in api["Properties"]["Body"]["paths"].items():
        for method, operation in of.items():
            name = {"x-amazon-apigateway-any-method": "any"}.get(method, method)
            uri = operation["x-amazon-apigateway-integration"]["uri"]["Fn::Sub"]
            function = re.search(r"\$\{(\w+)\.Arn\}", uri)[1]
            routes.setdefault(path, {})[name] = binary(template, function)
    return routes


def of_socket(template):
    """Paths of the distribution that go to the WebSocket API -> {"get": function}."""
    [distribution] = of_type(template, "AWS::CloudFront::Distribution").values()
    integrations = of_type(template, "AWS::ApiGatewayV2::Integration").values()
    [function] = {re.search(r"\$\{(\w+)\.Arn\}", one["Properties"]["IntegrationUri"]["Fn::Sub"])[1] for one in integrations}
    behaviors = distribution["Properties"]["DistributionConfig"]["CacheBehaviors"]
    return {one["PathPattern"]: {"get": binary(template, function)} for one in behaviors if one["TargetOriginId"] == "socket"}


def binary(template, function):
    """The program of a function: its name in Cargo.toml."""
    return template["Resources"][function].get("Metadata", {}).get("BuildProperties", {}).get("Binary", f"{function} (no binary)")


def tree(routes):
    """Segment -> (methods, subtree), as API Gateway keeps its resources."""
    root = ({}, {})
    for path, methods in routes.items():
        node = root
        for segment in (part for part in path.split("/") if part):
            node = node[1].setdefault(segment, ({}, {}))
        node[0].update(methods)
    return root


def looked_up(node, segments, turns_back):
    """The node for a path: a literal goes before a parameter, that before `{proxy+}`. AWS does not say whether it turns back from a branch that leads nowhere, so both are asked for."""
    if not segments:
        return node if node[0] else None
    first, rest = segments[0], segments[1:]
    children = node[1]
    parameter = next((name for name in children if name.startswith("{") and not name.endswith("+}")), None)
    greedy = next((name for name in children if name.endswith("+}")), None)
    for name in (first, parameter):
        if name in children:
            found = looked_up(children[name], rest, turns_back)
            if found or not turns_back:
                return found
    return children[greedy] if greedy else None


def function_for(node, method, path, turns_back):
    """The function that a gateway's tree gives a request to; None: no route."""
    found = looked_up(node, [part for part in path.split("/") if part], turns_back)
    return found and (found[0].get(method) or found[0].get("any"))


def differences(template):
    """What differs between the three, a sentence each."""
    told = []
    document, cargo = of_document(), of_cargo()
    gateway, socket = of_gateway(template), of_socket(template)
    for path in sorted({path for _, path in document} - set(cargo)):
        told.append(f"{path} is in docs/openapi.json and not in Cargo.toml's cargo-lambda table")
    for path in sorted(set(cargo) - {path for _, path in document}):
        told.append(f"{path} is in Cargo.toml's cargo-lambda table and not in docs/openapi.json")
    resources = tree(gateway)
    for method, path in sorted(document):
        wanted = cargo.get(path, {})
        wanted = wanted.get(method) or wanted.get("any")
        if not wanted:
            told.append(f"{method.upper()} {path} is in docs/openapi.json, and Cargo.toml gives the path to other methods alone")
            continue
        # A name like those that are put into the braces, and no other route's segment.
        asked = re.sub(r"\{(\w+)\}", r"some-\1", path)
        if path in socket:
            found = {socket[path].get(method)}
        else:
            found = {function_for(resources, method, asked, turns_back) for turns_back in (True, False)}
        if found != {wanted}:
            names = ", ".join(sorted(str(one) for one in found))
            told.append(f"{method.upper()} {path} is for {wanted} (Cargo.toml), and the template gives it to {names}")
    # What the template names beyond patterns must be somebody's.
    paths = {path for _, path in document}
    for path in sorted(set(gateway) | set(socket)):
        if "{proxy+}" in path:
            prefix = path.removesuffix("{proxy+}")
            if not any(one.startswith(prefix) or re.sub(r"\{\w+\}", "{}", one).startswith(re.sub(r"\{\w+\}", "{}", prefix)) for one in paths):
                told.append(f"{path} is in the template and no route lies below it")
        elif path not in paths:
            told.append(f"{path} is in the template and not in docs/openapi.json")
    for path, methods in sorted(gateway.items()):
        for method in methods:
            if method != "any" and (method, path) not in document:
                told.append(f"{method.upper()} {path} is in the template and not in docs/openapi.json")
    return told
