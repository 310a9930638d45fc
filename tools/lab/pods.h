// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/address.h"
#include "tools/lab/lab.h"

#include <string>
#include <vector>

namespace thruway::lab {

/// A pod to be made: a network namespace with an echo server in it.
struct PodSpec {
    std::string node;
    std::string name;
    std::string space = "default"; ///< its Kubernetes namespace
    std::vector<uint16_t> tcp{8080};
    std::vector<uint16_t> udp{8080}; ///< what the echo server listens on
};

struct Pod : PodSpec {
    std::string container; ///< what a runtime would call its sandbox: new each time
    std::vector<Address> addresses;

    /// Its name in one word, also that of its network namespace.
    [[nodiscard]] std::string id() const { return space + '_' + name; }
};

/// Makes a pod as a container runtime does, by the CNI plugin or, with dataplane none, by a veth pair and kernel
/// routes; starts its echo server, and shows the agents its manifest.
Result<Pod> add_pod(const Lab &lab, const PodSpec &spec);

Result<> delete_pod(const Lab &lab, const std::string &space, const std::string &name);

/// Kills the pod's echo server, with all its connections; the pod stays.
Result<> kill_echo(const Lab &lab, const Pod &pod);

Result<Pod> find_pod(const Lab &lab, const std::string &space, const std::string &name);

/// All pods, sorted by name.
Result<std::vector<Pod>> list_pods(const Lab &lab);

} // namespace thruway::lab
