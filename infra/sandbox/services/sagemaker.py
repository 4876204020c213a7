"""SageMaker: models, endpoint configurations, endpoints."""

from __future__ import annotations

from typing import Any

from infra.sandbox.aws import Aws
from infra.sandbox.kind import Found, Inputs, Kind, changed_tags, or_gone, pairs, pascal, take, unless_gone


def _sm(aws: Aws) -> Any:
    return aws.client("sagemaker")


def _tags(inputs: Inputs) -> dict[str, Any]:
    return {"Tags": pairs(inputs["tags"])} if inputs.get("tags") else {}


def _retag(aws: Aws, arn: str, old: Inputs, new: Inputs) -> None:
    given, removed = changed_tags(old, new)
    if given:
        _sm(aws).add_tags(ResourceArn=arn, Tags=pairs(given))
    if removed:
        _sm(aws).delete_tags(ResourceArn=arn, TagKeys=removed)


def _sources(given: list[Inputs]) -> dict[str, Any]:
    """The provider takes a list where SageMaker takes one source."""
    return {"S3DataSource": pascal(given[0])}


def _container(given: Inputs) -> dict[str, Any]:
    container = take(given, Image="image", Environment="environment", ModelDataUrl="modelDataUrl")
    if given.get("modelDataSource"):
        container["ModelDataSource"] = _sources(given["modelDataSource"]["s3DataSources"])
    if given.get("additionalModelDataSources"):
        container["AdditionalModelDataSources"] = [
            {"ChannelName": source["channelName"], **_sources(source["s3DataSources"])}
            for source in given["additionalModelDataSources"]
        ]
    return container


def _create_model(aws: Aws, inputs: Inputs) -> str:
    parameters = take(inputs, ExecutionRoleArn="executionRoleArn", EnableNetworkIsolation="enableNetworkIsolation")
    if inputs.get("vpcConfig"):
        parameters["VpcConfig"] = pascal(inputs["vpcConfig"])
    _sm(aws).create_model(
        ModelName=inputs["name"],
        PrimaryContainer=_container(inputs["primaryContainer"]),
        **parameters,
        **_tags(inputs),
    )
    return str(inputs["name"])


def _create_config(aws: Aws, inputs: Inputs) -> str:
    parameters = take(inputs, KmsKeyId="kmsKeyArn")
    for key in ("asyncInferenceConfig", "dataCaptureConfig"):
        if inputs.get(key):
            parameters[key[:1].upper() + key[1:]] = pascal(inputs[key])
    _sm(aws).create_endpoint_config(
        EndpointConfigName=inputs["name"],
        ProductionVariants=pascal(inputs["productionVariants"]),
        **parameters,
        **_tags(inputs),
    )
    return str(inputs["name"])


def _create_endpoint(aws: Aws, inputs: Inputs) -> str:
    _sm(aws).create_endpoint(
        EndpointName=inputs["name"], EndpointConfigName=inputs["endpointConfigName"], **_tags(inputs)
    )
    return str(inputs["name"])


def _update_endpoint(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
    """moto has no UpdateEndpoint: for another configuration the endpoint is made anew, under its name and its ARN."""
    if old["endpointConfigName"] != new["endpointConfigName"]:
        unless_gone(_sm(aws).delete_endpoint, EndpointName=id_)
        _create_endpoint(aws, new)
        return
    _update_tags("endpoint", "Endpoint")(aws, id_, old, new)


def _read(call: str, parameter: str, arn: str) -> Any:
    def read(aws: Aws, id_: str, _inputs: Inputs) -> Found:
        def found() -> Found:
            return {"arn": getattr(_sm(aws), call)(**{parameter: id_})[arn], "name": id_}

        return or_gone(found)

    return read


def _delete(call: str, parameter: str) -> Any:
    def delete(aws: Aws, id_: str, _inputs: Inputs) -> None:
        unless_gone(getattr(_sm(aws), call), **{parameter: id_})

    return delete


def _update_tags(thing: str, name: str) -> Any:
    read = _read(f"describe_{thing}", f"{name}Name", f"{name}Arn")

    def update(aws: Aws, id_: str, old: Inputs, new: Inputs) -> None:
        if found := read(aws, id_, new):
            _retag(aws, found["arn"], old, new)

    return update


KINDS = (
    Kind(
        "aws:sagemaker/model:Model", _create_model, _read("describe_model", "ModelName", "ModelArn"),
        _delete("delete_model", "ModelName"), _update_tags("model", "Model"), frozenset({"tags"}), names="name",
        name_limit=63,
    ),
    Kind(
        "aws:sagemaker/endpointConfiguration:EndpointConfiguration", _create_config,
        _read("describe_endpoint_config", "EndpointConfigName", "EndpointConfigArn"),
        _delete("delete_endpoint_config", "EndpointConfigName"), _update_tags("endpoint_config", "EndpointConfig"),
        frozenset({"tags"}), names="name", name_limit=63,
    ),
    Kind(
        "aws:sagemaker/endpoint:Endpoint", _create_endpoint, _read("describe_endpoint", "EndpointName", "EndpointArn"),
        _delete("delete_endpoint", "EndpointName"), _update_endpoint, frozenset({"endpointConfigName", "tags"}),
        names="name", name_limit=63,
    ),
)  # fmt: skip
