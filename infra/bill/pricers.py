"""Which pricer a resource type has. A type of AWS that stands in neither table is listed as unpriced."""

from __future__ import annotations

from infra.bill import machines, services
from infra.bill.services import Pricer

PRICERS: dict[str, Pricer] = {
    "aws:autoscaling/group:Group": machines.group,
    "aws:cloudwatch/dashboard:Dashboard": services.dashboard,
    "aws:cloudwatch/logGroup:LogGroup": services.log_group,
    "aws:cloudwatch/metricAlarm:MetricAlarm": services.alarm,
    "aws:ebs/volume:Volume": machines.volume,
    "aws:ec2/capacityBlockReservation:CapacityBlockReservation": machines.capacity_block,
    "aws:ec2/eip:Eip": services.address,
    "aws:ec2/instance:Instance": machines.instance,
    "aws:ec2/natGateway:NatGateway": services.nat_gateway,
    "aws:ec2/vpcEndpoint:VpcEndpoint": services.vpc_endpoint,
    "aws:ecr/repository:Repository": services.repository,
    "aws:kms/key:Key": services.key,
    "aws:lb/loadBalancer:LoadBalancer": services.load_balancer,
    "aws:route53/zone:Zone": services.zone,
    "aws:s3/bucket:Bucket": services.bucket,
    "aws:sagemaker/endpointConfiguration:EndpointConfiguration": machines.endpoint_configuration,
    "aws:sns/topic:Topic": services.topic,
}

FREE: dict[str, str] = {
    "aws:appautoscaling/policy:Policy": "application auto scaling is free",
    "aws:appautoscaling/target:Target": "application auto scaling is free",
    "aws:autoscaling/policy:Policy": "auto scaling is free",
    "aws:autoscaling/schedule:Schedule": "auto scaling is free",
    "aws:budgets/budget:Budget": "budgets without actions are free",
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": "",
    "aws:ec2/flowLog:FlowLog": "its log group bears the cost",
    "aws:ec2/internetGateway:InternetGateway": "",
    "aws:ec2/launchTemplate:LaunchTemplate": "its instances bear the cost",
    "aws:ec2/placementGroup:PlacementGroup": "",
    "aws:ec2/route:Route": "",
    "aws:ec2/routeTable:RouteTable": "",
    "aws:ec2/routeTableAssociation:RouteTableAssociation": "",
    "aws:ec2/securityGroup:SecurityGroup": "",
    "aws:ec2/subnet:Subnet": "",
    "aws:ec2/vpc:Vpc": "",
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": "",
    "aws:iam/instanceProfile:InstanceProfile": "",
    "aws:iam/role:Role": "",
    "aws:iam/rolePolicy:RolePolicy": "",
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": "",
    "aws:kms/alias:Alias": "",
    "aws:lb/listener:Listener": "its load balancer bears the cost",
    "aws:lb/targetGroup:TargetGroup": "its load balancer bears the cost",
    "aws:route53/record:Record": "",
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": "",
    "aws:s3/bucketLogging:BucketLogging": "",
    "aws:s3/bucketOwnershipControls:BucketOwnershipControls": "",
    "aws:s3/bucketPolicy:BucketPolicy": "",
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": "",
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": "",
    "aws:s3/bucketVersioning:BucketVersioning": "",
    "aws:sagemaker/endpoint:Endpoint": "its configuration bears the cost",
    "aws:sagemaker/model:Model": "",
    "aws:scheduler/schedule:Schedule": "the first 14 million invocations a month are free",
    "aws:sns/topicPolicy:TopicPolicy": "",
    "aws:sns/topicSubscription:TopicSubscription": "its topic bears the cost",
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": "",
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": "",
}
"""Types that cost nothing by themselves, and why where it is worth saying."""
