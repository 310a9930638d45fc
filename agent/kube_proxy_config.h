// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "agent/config.h"

#include <nlohmann/json.hpp>

namespace thruway {

/// Whether a configuration file is kube-proxy's own: kind KubeProxyConfiguration of kubeproxy.config.k8s.io.
bool is_kube_proxy_config(const nlohmann::json &settings);

/// Takes from it what there is here, too; each other field that says something becomes a notice. Unknown fields are
/// errors.
Result<> read_kube_proxy_config(const nlohmann::json &settings, Config &config);

} // namespace thruway
