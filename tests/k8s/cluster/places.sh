# Versions and places of the cluster of one node. Sourced by `up` and `down`.
# shellcheck shell=bash disable=SC2034
KUBERNETES=v1.33.13 COREDNS=v1.12.1 KUBE_ROUTER=v2.1.0 MPI_OPERATOR=v0.8.2
CLUSTER=$CACHE/k8s/cluster
BIN=$CLUSTER/bin ETC=$CLUSTER/etc STATE=$CLUSTER/state LOG=$CLUSTER/log
SOCKET=/run/bearing-containerd/containerd.sock
NODE=node1 ADDRESS=10.99.0.1
