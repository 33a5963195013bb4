"""What no validator looks at: strings that only AWS, the functions or the documents give a meaning to. Each check tells what is wrong, a sentence each."""

import json
import re

import routes
from template import ROOT, of_type

RATE = re.compile(r"rate\((1 (minute|hour|day)|([2-9]|[1-9]\d+) (minutes|hours|days))\)")
# Lambda and API Gateway quotas (AWS service quotas, November 2026).
LONGEST_FUNCTION_S, LONGEST_BUFFERED_MS, LONGEST_STREAM_MS = 900, 29_000, 900_000
MEMORY_MB = range(128, 10_241)
CACHING_DISABLED, CACHING_OPTIMIZED = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad", "658327ea-f89d-4fab-a63d-7e88639e58f6"
ALL_BUT_HOST = "b689b0a8-53d0-40ab-baf2-68738e2966ac"
ALL_METHODS = {"GET", "HEAD", "OPTIONS", "PUT", "PATCH", "POST", "DELETE"}


def mistakes(template, written):
    """All mistakes in a template that was expanded; `written` is the same as it stands in the file."""
    checks = [sockets, schedules, integrations, urls, functions, store, secrets, distribution, pages, variables, metrics]
    return [f"{check.__name__}: {told}" for check in checks for told in check(template, written)]


def properties(template, kind):
    return {name: one["Properties"] for name, one in of_type(template, kind).items()}


def sockets(template, _):
    for name, api in properties(template, "AWS::ApiGatewayV2::Api").items():
        if api.get("ProtocolType") != "WEBSOCKET":
            yield f"{name}: ProtocolType is {api.get('ProtocolType')}, not WEBSOCKET"
    found = properties(template, "AWS::ApiGatewayV2::Route")
    keys = sorted(route.get("RouteKey") for route in found.values())
    if keys != ["$connect", "$default", "$disconnect"]:
        yield f"the routes are {keys}"
    for name, route in found.items():
        if route.get("AuthorizationType") != "NONE":
            yield f"{name}: AuthorizationType is {route.get('AuthorizationType')}; the function asks for keys itself"
        target = route.get("Target", {}).get("Fn::Sub", "")
        integration = re.fullmatch(r"integrations/\$\{(\w+)\}", target)
        if not integration or integration[1] not in of_type(template, "AWS::ApiGatewayV2::Integration"):
            yield f"{name}: Target {target} is no integration"
        if route.get("RouteKey") == "$default":
            if "RouteResponseSelectionExpression" in route or of_type(template, "AWS::ApiGatewayV2::RouteResponse"):
                yield f"{name}: frames are answered by the management API, a route response would answer each again"
    for name, one in properties(template, "AWS::ApiGatewayV2::Integration").items():
        if one.get("IntegrationType") != "AWS_PROXY":
            yield f"{name}: IntegrationType is {one.get('IntegrationType')}"
        uri = one.get("IntegrationUri", {}).get("Fn::Sub", "")
        if not re.fullmatch(r"arn:\$\{AWS::Partition\}:apigateway:\$\{AWS::Region\}:lambda:path/2015-03-31/functions/\$\{\w+\.Arn\}/invocations", uri):
            yield f"{name}: IntegrationUri is {uri}"
    managed = json.dumps(template["Resources"].get("SocketRole", {}))
    stages = [one["StageName"] for one in properties(template, "AWS::ApiGatewayV2::Stage").values()]
    if len(stages) != 1 or f"${{SocketApi}}/{stages[0]}/*/@connections/*" not in managed or "execute-api:ManageConnections" not in managed:
        yield "the role of socket may not answer the connections of its stage"


def schedules(template, _):
    found = properties(template, "AWS::Scheduler::Schedule")
    for name, schedule in found.items():
        if not RATE.fullmatch(schedule.get("ScheduleExpression", "")):
            yield f"{name}: ScheduleExpression is {schedule.get('ScheduleExpression')}"
    woken = {schedule["Target"]["Arn"]["Fn::GetAtt"][0] for schedule in found.values()}
    if missing := {"Worker", "Cleanup", "Mesh"} - woken:
        yield f"nothing wakes {', '.join(sorted(missing))}"


def streaming_programs():
    """Programs that answer in the streaming form, by their source: behind a buffered integration that is no answer."""
    sources = (ROOT / "functions").glob("*/src/main.rs")
    return {path.parts[-3] for path in sources if "run_with_streaming_response" in path.read_text()}


def integrations(template, _):
    streaming = streaming_programs()
    scheduled = {one["Target"]["Arn"]["Fn::GetAtt"][0] for one in properties(template, "AWS::Scheduler::Schedule").values()}
    [api] = properties(template, "AWS::ApiGateway::RestApi").values()
    for path, of in api["Body"]["paths"].items():
        for method, operation in of.items():
            what = f"{path} ({method})"
            one = operation["x-amazon-apigateway-integration"]
            uri = one["uri"]["Fn::Sub"]
            function = re.search(r"\$\{(\w+)\.Arn\}", uri)[1]
            streams = routes.binary(template, function) in streaming
            version, end = ("2021-11-15", "response-streaming-invocations") if streams else ("2015-03-31", "invocations")
            # The transform writes the partition of the region that it is asked for.
            wanted = f"arn:aws:apigateway:${{AWS::Region}}:lambda:path/{version}/functions/${{{function}.Arn}}/{end}"
            if uri != wanted:
                yield f"{what}: the uri is {uri}, not {wanted}"
            if one.get("type") != "aws_proxy" or one.get("httpMethod") != "POST":
                yield f"{what}: type {one.get('type')}, httpMethod {one.get('httpMethod')}; a function is invoked by POST as aws_proxy"
            if one.get("responseTransferMode", "BUFFERED") != ("STREAM" if streams else "BUFFERED"):
                yield f"{what}: responseTransferMode is {one.get('responseTransferMode')}"
            patience, longest = one.get("timeoutInMillis", LONGEST_BUFFERED_MS), LONGEST_STREAM_MS if streams else LONGEST_BUFFERED_MS
            if not 50 <= patience <= longest:
                yield f"{what}: timeoutInMillis is {patience}, the gateway takes up to {longest}"
            # One that a schedule wakes as well may have the longer time there.
            if function not in scheduled and template["Resources"][function]["Properties"].get("Timeout", 3) * 1000 > patience:
                yield f"{what}: {function} may work longer than the gateway waits"
    if api.get("EndpointConfiguration", {}).get("Types") != ["REGIONAL"]:
        yield "the REST API is not regional: behind an edge-optimised one a stream is cut after 30 s of silence"
    if api["Body"].get("x-amazon-apigateway-binary-media-types") != ["*/*"] and api.get("BinaryMediaTypes") != ["*/*"]:
        yield "not all bodies reach the functions as they were sent (BinaryMediaTypes)"
    longest = template["Resources"]["Stream"]["Properties"]["Timeout"]
    if longest < 90 + 10:
        yield f"Stream ends after {longest} s, before its streams do"


def urls(template, _):
    for name, url in properties(template, "AWS::Lambda::Url").items():
        if url.get("InvokeMode") != "RESPONSE_STREAM":
            yield f"{name}: InvokeMode is {url.get('InvokeMode')}"
        if url.get("AuthType") != "NONE":
            yield f"{name}: AuthType is {url.get('AuthType')}; a signature takes the place of the header that keys come in"
        function = url["TargetFunctionArn"]["Fn::GetAtt"][0]
        public = [one for one in properties(template, "AWS::Lambda::Permission").values() if one.get("FunctionName") == {"Ref": function} and one.get("Principal") == "*"]
        held = {(one["Action"], one.get("FunctionUrlAuthType"), one.get("InvokedViaFunctionUrl")) for one in public}
        if held != {("lambda:InvokeFunctionUrl", "NONE", None), ("lambda:InvokeFunction", None, True)}:
            yield f"{name}: the two permissions of a URL are {sorted(map(str, held))}"


def functions(template, written):
    for size, of in written["Mappings"]["Sizes"].items():
        for name, value in of.items():
            if name in written["Resources"] and value not in MEMORY_MB:
                yield f"{size}: {name} has {value} MB"
    programs = {path.parts[-3] for path in (ROOT / "functions").glob("*/src/main.rs")} - {"local"}
    found = {}
    for name, one in of_type(template, "AWS::Lambda::Function").items():
        found[name] = routes.binary(template, name)
        of = one["Properties"]
        if of.get("Timeout", 3) > LONGEST_FUNCTION_S:
            yield f"{name}: Timeout is {of['Timeout']}"
        if (of.get("Runtime"), of.get("Handler")) != ("provided.al2023", "bootstrap"):
            yield f"{name}: runtime {of.get('Runtime')}, handler {of.get('Handler')}"
        if of.get("MemorySize") != {"Fn::FindInMap": ["Sizes", {"Ref": "Size"}, name]}:
            yield f"{name}: its memory is not that of its size"
        if "VpcConfig" not in of:
            yield f"{name}: it cannot reach Valkey from outside the VPC"
        if one.get("Metadata", {}).get("BuildMethod") != "rust-cargolambda":
            yield f"{name}: BuildMethod is {one.get('Metadata', {}).get('BuildMethod')}"
    if sorted(found.values()) != sorted(programs):
        yield f"the programs are {sorted(programs)}, the functions' {sorted(found.values())}"


def rights_in_document():
    """Words of the ACL rule in docs/operations.md."""
    text = (ROOT / "docs" / "operations.md").read_text()
    rule = re.search(r"ACL SETUSER tailspan reset on >\S+ (.+?)\n```", text, re.DOTALL)[1]
    return set(rule.replace("\\\n", " ").split())


def store(template, _):
    [nodes] = properties(template, "AWS::ElastiCache::ReplicationGroup").values()
    for name, wanted in {"TransitEncryptionEnabled": True, "TransitEncryptionMode": "required", "AtRestEncryptionEnabled": True, "AutomaticFailoverEnabled": True, "Engine": "valkey"}.items():
        if nodes.get(name) != wanted:
            yield f"{name} is {nodes.get(name)}"
    [parameters] = properties(template, "AWS::ElastiCache::ParameterGroup").values()
    for name, wanted in {"maxmemory-policy": "noeviction", "cluster-enabled": "yes"}.items():
        if parameters["Properties"].get(name) != wanted:
            yield f"{name} is {parameters['Properties'].get(name)}"
    if parameters["CacheParameterGroupFamily"] != f"valkey{nodes['EngineVersion'].split('.')[0]}":
        yield f"family {parameters['CacheParameterGroupFamily']} is not that of version {nodes['EngineVersion']}"
    [user] = properties(template, "AWS::ElastiCache::User").values()
    given = set(user["AccessString"].split())
    if given - {"on", "-@all"} != rights_in_document() or not {"on", "-@all"} <= given:
        yield f"the user's rights are not those of docs/operations.md: {sorted((given - {'on', '-@all'}) ^ rights_in_document())}"


def secrets(template, written):
    text = written["Resources"]["Settings"]["Properties"]["SecretString"]["Fn::Sub"][0]
    held = json.loads(text)
    user = written["Resources"]["StoreUser"]["Properties"]["UserName"]
    wanted = f"rediss-cluster://{user}:{{{{resolve:secretsmanager:${{StorePassword}}:SecretString:password}}}}@${{Address}}:6379"
    if held.get("TAILSPAN_REDIS_URL") != wanted:
        yield f"TAILSPAN_REDIS_URL is {held.get('TAILSPAN_REDIS_URL')}, not {wanted}"
    for name, value in held.items():
        for secret, key in re.findall(r"\{\{resolve:secretsmanager:\$\{(\w+)\}:SecretString:(\w+)\}\}", value):
            if written["Resources"][secret]["Properties"]["GenerateSecretString"]["GenerateStringKey"] != key:
                yield f"{name}: {secret} has no field {key}"
    # In a URL and in JSON they would have to be escaped.
    for name, secret in properties(template, "AWS::SecretsManager::Secret").items():
        generated = secret.get("GenerateSecretString")
        if generated and not (generated.get("ExcludePunctuation") is True and generated.get("PasswordLength", 32) >= 32):
            yield f"{name}: generated with punctuation, or with fewer than 32 characters"


def distribution(template, _):
    [one] = properties(template, "AWS::CloudFront::Distribution").values()
    config = one["DistributionConfig"]
    origins = {}
    for origin in config["Origins"]:
        origin = origin["Fn::If"][1] if "Fn::If" in origin else origin
        origins[origin["Id"]] = origin
        told = origin.get("CustomOriginConfig")
        if told and (told.get("OriginProtocolPolicy"), told.get("OriginReadTimeout"), told.get("OriginSSLProtocols")) != ("https-only", 60, ["TLSv1.2"]):
            yield f"origin {origin['Id']}: {told}"
    [stage] = properties(template, "AWS::ApiGateway::Stage").values()
    if origins["api"].get("OriginPath") != f"/{stage['StageName']}":
        yield f"origin api: OriginPath is {origins['api'].get('OriginPath')}, the stage {stage['StageName']}"
    [socket] = properties(template, "AWS::ApiGatewayV2::Stage").values()
    if f"uri = '/{socket['StageName']}'" not in template["Resources"]["ToSocketStage"]["Properties"]["FunctionCode"]:
        yield "the way to the WebSocket API is not its stage"

    def targets(of):
        return [of] if isinstance(of, str) else [target for branch in of["Fn::If"][1:] for target in targets(branch)]

    paths = set()
    for behavior in [config["DefaultCacheBehavior"], *config["CacheBehaviors"]]:
        path = behavior.get("PathPattern", "(default)")
        for target in targets(behavior["TargetOriginId"]):
            if target not in origins:
                yield f"{path}: there is no origin {target}"
        if behavior["TargetOriginId"] == "pages":
            if behavior.get("CachePolicyId") != CACHING_OPTIMIZED or "OriginRequestPolicyId" in behavior or "ResponseHeadersPolicyId" not in behavior:
                yield f"{path}: not as the pages are to be answered"
            continue
        if behavior.get("CachePolicyId") != CACHING_DISABLED or behavior.get("OriginRequestPolicyId") != ALL_BUT_HOST or behavior.get("Compress") is not False:
            yield f"{path}: what the API answers must pass as it is, uncached, with all that was asked but the host"
        if behavior["TargetOriginId"] != "socket" and set(behavior.get("AllowedMethods", [])) != ALL_METHODS:
            yield f"{path}: AllowedMethods are {behavior.get('AllowedMethods')}"
        if behavior["TargetOriginId"] not in ("api", "socket"):
            paths.add(path)
    # Where streams have a front of their own: each pattern is one of theirs, and of nobody else.
    cargo = routes.of_cargo()
    for path in sorted(paths):
        pattern = re.compile(re.escape(path).replace(r"\*", ".+"))
        others = [one for one, of in cargo.items() if pattern.fullmatch(one) and set(of.values()) != {"stream"}]
        if others:
            yield f"{path}: {others} are not for stream"
    for one in (one for one, of in cargo.items() if set(of.values()) == {"stream"} and one.endswith(("/stream", "/ui-updates"))):
        if not any(re.fullmatch(re.escape(path).replace(r"\*", ".+"), one) for path in paths) and not one.startswith("/v1/trace/"):
            yield f"{one}: no pattern takes it to the front of streams"


def pages(template, _):
    source = (ROOT / "functions" / "local" / "src" / "dashboard.rs").read_text()
    policy = re.search(r'const POLICY: &str = "(.+?)";', source, re.DOTALL)[1]
    policy = re.sub(r"\\\n\s*", "", policy)
    headers = template["Resources"]["PagesHeaders"]["Properties"]["ResponseHeadersPolicyConfig"]
    given = headers["SecurityHeadersConfig"]["ContentSecurityPolicy"]["ContentSecurityPolicy"]
    if given.split() != policy.split():
        yield f"the policy of the pages is {given}, that of `tailspan serve` {policy}"
    served = set(re.findall(r'\.route\("([^"]+)"', source))
    wanted = {re.sub(r"\{[^}]+\}", "*", path) for path in served}
    [one] = properties(template, "AWS::CloudFront::Distribution").values()
    behaviors = one["DistributionConfig"]["CacheBehaviors"]
    found = {behavior["PathPattern"] for behavior in behaviors if behavior["TargetOriginId"] == "pages"} - {"/index.html"}
    if found != wanted:
        yield f"the pages are at {sorted(wanted)}, the distribution has {sorted(found)}"
    index = {re.sub(r"\{[^}]+\}", "*", path) for path in re.findall(r'\.route\("([^"]+)", index', source)}
    to_index = {behavior["PathPattern"] for behavior in behaviors if behavior.get("FunctionAssociations", [{}])[0].get("FunctionARN") == {"Fn::GetAtt": ["ToIndex", "FunctionARN"]}}
    if to_index != index:
        yield f"index.html is for {sorted(index)}, the distribution gives it to {sorted(to_index)}"


def variables(template, written):
    """Every variable that is given must be one that the programs read."""
    sources = [path.read_text() for folder in ("shared", "functions") for path in (ROOT / folder).rglob("*.rs")]
    known = set(re.findall(r"(?:TAILSPAN|OPENAI|ANTHROPIC|GOOGLE)_[A-Z_]*[A-Z]", "\n".join(sources)))
    given = set(json.loads(written["Resources"]["Settings"]["Properties"]["SecretString"]["Fn::Sub"][0]))
    for one in properties(template, "AWS::Lambda::Function").values():
        given |= set(one["Environment"]["Variables"])
    for task in properties(template, "AWS::ECS::TaskDefinition").values():
        given |= {pair["Name"] for container in task["ContainerDefinitions"] for pair in container["Environment"] + container["Secrets"]}
    # The operator's files may name these.
    for name in sorted(given - known - {"AWS_LAMBDA_HTTP_IGNORE_STAGE_IN_PATH", "AGENTS_SECRET", "WEBHOOKS_SECRET", "FORWARD_SECRET"}):
        yield f"no program reads {name}"


def metrics(template, _):
    """Alarms on our own metrics name metrics that there are."""
    known = set(re.findall(r"`tailspan_(\w+)`", (ROOT / "docs" / "operations.md").read_text()))
    for name, alarm in properties(template, "AWS::CloudWatch::Alarm").items():
        if alarm.get("Namespace") == "Tailspan" and alarm["MetricName"] not in known:
            yield f"{name}: there is no metric {alarm['MetricName']}"
