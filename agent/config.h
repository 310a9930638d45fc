// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/base/error.h"
#include "agent/datapath/programs.h"
#include "agent/kube/access.h"

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace thruway {

/// What the agent is told by its command line and its configuration file.
struct Config {
    std::string node;
    std::string source; ///< "kube" or "file:DIR"
    KubeOptions kube;
    std::vector<std::string> uplinks;
    std::string run_dir = "/run/thruway";
    std::string bpffs = "/sys/fs/bpf/thruway";
    std::string cgroup; ///< empty: the root of the cgroup2 hierarchy
    SockMode sock = SockMode::host;
    XdpMode xdp = XdpMode::automatic;
    std::vector<std::string> node_port_addresses; ///< see NodePortAddresses
    bool localhost_node_ports = false;
    std::string metrics_address = "127.0.0.1:10249";
    std::string health_address = "0.0.0.0:10256";
    std::string log_level = "info";
    Sizes sizes;
    Timeouts timeouts;
    std::vector<std::string> notices; ///< lines about the file itself, to be logged
};

/// Reads a YAML file of settings over what `config` has. An unknown key or a value of the wrong kind is an error that
/// names it. The file may be a KubeProxyConfiguration as well: what of it has no meaning here is noticed.
Result<> read_config(const std::string &path, Config &config);

/// Fails with the first setting that cannot be.
Result<> check_config(const Config &config);

/// All settings by their keys, as a configuration file would have them.
nlohmann::json config_json(Config config);

Result<SockMode> parse_sock_mode(const std::string &text);

} // namespace thruway
